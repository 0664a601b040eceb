// One Chromium for all tests, a profile of its own for each, and nothing on the console that nobody expected.

import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { after, before } from 'node:test';
import { chromium } from 'playwright-core';

export const URL_ = process.env.INKMETER_URL;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
];
const SCREENSHOTS = new URL('../screenshots/', import.meta.url);
/** Makes a user's name one of this run: a cloud that has seen a run before has not seen them. */
export const someone = (user) => `${user}-${RUN}`;
const RUN = Date.now().toString(36);

/** How long anything may take before its test fails instead of hanging. */
export const LIMIT_MS = 30_000;

export const DESKTOP = { viewport: { width: 1280, height: 860 } };
export const PHONE = { viewport: { width: 375, height: 760 }, deviceScaleFactor: 2, hasTouch: true };

let browser;
before(async () => {
    if (!existsSync(CHROMIUM)) throw new Error(`there is no Chromium at ${CHROMIUM}`);
    await mkdir(SCREENSHOTS, { recursive: true });
    // Playwright gives it a fresh --user-data-dir.
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
});
after(() => browser?.close());

/** The page before anybody has signed in. */
export async function open(t, options = DESKTOP, expected = /status of 4\d\d/) {
    const context = await browser.newContext({ reducedMotion: 'reduce', ...options });
    context.setDefaultTimeout(LIMIT_MS);
    const page = await context.newPage();
    const wrong = [];
    page.on('pageerror', (error) => wrong.push(String(error)));
    page.on('console', (message) => {
        // A refusal is logged by the browser itself; what its page says of it is what is tested.
        if (message.type() === 'error' && !expected.test(message.text())) wrong.push(message.text());
    });
    t.after(async () => {
        await context.close();
        if (wrong.length > 0) throw new Error(`on the console: ${wrong.join('\n')}`);
    });
    await page.goto(URL_);
    return page;
}

/** The page of a test user. The page's own test users are taken by others, so each test has one like them. */
export async function signedIn(t, user, options, expected) {
    const page = await open(t, options, expected);
    const [person] = user.split('-');
    await page.route('**/local/people', async (route) => {
        const people = await (await route.fetch()).json();
        await route.fulfill({ json: people.map((each) => (each.name === person ? { ...each, name: user } : each)) });
    });
    await page.reload();
    await page.getByRole('button', { name: title(person) }).click();
    await page.getByRole('meter').waitFor();
    return page;
}

const title = (person) => person.slice(0, 1).toUpperCase() + person.slice(1);

export const shot = (page, name, options) => page.screenshot({ path: new URL(`${name}.png`, SCREENSHOTS).pathname, ...options });

export const box = (page) => page.getByRole('textbox', { name: 'Your text' });
export const copy = (page) => page.getByTestId('copy');
export const alert = (page) => page.getByRole('alert');
export const composed = (page) => page.locator('#panel-Compose').getByTestId('receipt');

export async function write(page, prompt) {
    await box(page).fill(prompt);
    await page.getByRole('button', { name: 'Write', exact: true }).click();
}

/** Tokens that the meter shows as settled. */
export const metered = async (page) => Number(await page.getByTestId('settled').getAttribute('data-tokens'));

export async function meterIs(page, tokens) {
    await page.locator(`[data-testid=settled][data-tokens="${tokens}"]`).waitFor();
}

/** `GET /v1/usage`, asked beside the page. */
export async function usage(user) {
    const headers = { 'content-type': 'application/json' };
    const signIn = await fetch(`${URL_}/local/sign-in`, { method: 'POST', headers, body: JSON.stringify({ user }) });
    const { token } = await signIn.json();
    return (await fetch(`${URL_}/v1/usage`, { headers: { authorization: `Bearer ${token}` } })).json();
}
