// The page in a real browser, against the local cloud at INKMETER_URL. Every picture is taken on the way, to be looked at.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { alert, box, composed, copy, DESKTOP, LIMIT_MS, metered, meterIs, open, PHONE, shot, signedIn, someone, usage, write } from './chromium.mjs';

const limit = { timeout: 2 * LIMIT_MS };
/** For who has to see a rate window of a minute to its end. */
const aWindow = { timeout: 5 * LIMIT_MS };
/** Tokens of the whole answer, and milliseconds between them: nine seconds, time enough to stop in. */
const WHOLE = 30;
const SLOW = `[[tokens=${WHOLE} delay_ms=300]] A kettle that takes its time.`;

const text = async (page) => (await copy(page).textContent()) ?? '';
const words = (page, count) =>
    page.waitForFunction((count) => (document.querySelector('[data-testid=copy]')?.textContent ?? '').split(' ').length >= count, count);
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

test('a test user signs in, writes, and sees the meter move by what the receipt says', limit, async (t) => {
    const page = await open(t);
    await page.getByRole('button', { name: 'Alice' }).waitFor();
    await shot(page, 'sign-in');
    await page.getByRole('button', { name: 'Alice' }).click();
    await page.getByRole('meter').waitFor();
    const before = await metered(page);
    await shot(page, 'empty');
    await page.getByRole('radio', { name: 'Product' }).check();
    await page.getByLabel('Tone').selectOption('playful');
    await page.getByLabel('Audience').fill('people who forget the kettle');
    await write(page, '[[tokens=60 delay_ms=20]] Stainless steel kettle, 1.2 l, sings when the water boils.');
    await words(page, 12);
    await shot(page, 'streaming');
    await composed(page).waitFor();
    const charged = Number(await composed(page).getAttribute('data-charged'));
    assert.ok(charged > 60, `${charged}`);
    await meterIs(page, before + charged);
    assert.equal((await usage('alice')).usage.settled, before + charged);
    assert.equal(await alert(page).count(), 0);
    await shot(page, 'done');
});

test('a reload keeps who is signed in, and signing out forgets it', limit, async (t) => {
    const page = await signedIn(t, someone('alice-reload'));
    await page.reload();
    await page.getByRole('meter').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('button', { name: 'Alice' }).waitFor();
    await page.reload();
    await page.getByRole('button', { name: 'Alice' }).waitFor();
    assert.equal(await page.getByRole('meter').count(), 0);
});

test('what a request costs is shown as it is typed, and nothing is charged for asking', limit, async (t) => {
    const page = await signedIn(t, someone('bob-quote'));
    const asked = [];
    page.on('request', (request) => request.url().endsWith('/v1/quote') && asked.push(request));
    const before = await metered(page);
    await box(page).pressSequentially('A kettle that sings when the water boils');
    const known = page.locator('[data-testid=quote][data-known=true]');
    await known.waitFor();
    assert.match((await known.textContent()) ?? '', /^At most [\d,]+ tokens, within your plan\.$/);
    const first = await known.textContent();
    assert.ok(asked.length < 20, `${asked.length} requests for 40 keys`);
    // A paste of ten thousand words costs more, before the button is pressed.
    await box(page).fill('kettle '.repeat(4_000));
    await page.waitForFunction((first) => {
        const shown = document.querySelector('[data-testid=quote]')?.textContent;
        return shown !== first && shown?.startsWith('At most');
    }, first);
    await shot(page, 'quote');
    assert.equal((await usage(someone('bob-quote'))).usage.settled, before);
});

test('a 402 says how much is left and when it comes back, before and after the button is pressed', limit, async (t) => {
    const page = await signedIn(t, someone('carol-page'));
    const before = await usage(someone('carol-page'));
    await box(page).fill('A kettle that sings when the water boils.');
    await page.locator('[data-testid=quote].refused').waitFor();
    await page.getByRole('button', { name: 'Write', exact: true }).click();
    await page.locator('[role=alert][data-code=quota_exceeded]').waitFor();
    const said = await alert(page).textContent();
    assert.match(said ?? '', new RegExp(`${before.usage.left} are left`));
    assert.doesNotMatch(said ?? '', /\d{4}-\d\d-\d\dT|[{}]/, 'it is for a person');
    assert.equal(await alert(page).getByRole('button').count(), 0, 'no button that would be refused for weeks');
    await shot(page, '402');
    assert.deepEqual((await usage(someone('carol-page'))).usage, before.usage);
});

test('a 429 counts down, and then the same request passes', aWindow, async (t) => {
    const page = await signedIn(t, someone('dave-page'), { ...PHONE, colorScheme: 'dark' });
    await write(page, '[[tokens=12]] A kettle');
    await page.locator('[role=alert][data-code=rate_limited]').waitFor();
    const button = alert(page).getByRole('button');
    assert.match((await button.textContent()) ?? '', /^Try again in (1 min )?\d+ s$/);
    assert.ok(await button.isDisabled());
    await shot(page, '429-phone-dark', { fullPage: true });
    await button.and(page.locator(':enabled')).click({ timeout: 70_000 });
    await composed(page).waitFor();
    assert.equal(await alert(page).count(), 0);
});

test('f28_a_cut_shows_an_error_and_keeps_the_text', limit, async (t) => {
    const page = await signedIn(t, someone('alice-cut'));
    await write(page, '[[tokens=30 cut=5]] A kettle that breaks.');
    await alert(page).waitFor();
    assert.match((await alert(page).textContent()) ?? '', /broke off/);
    const kept = await text(page);
    assert.ok(kept.split(' ').length >= 3, kept);
    assert.ok(await alert(page).getByRole('button', { name: 'Try again' }).isEnabled());
    await shot(page, 'cut');
    // What was written is what was charged, if anything was; the meter says so too.
    await meterIs(page, (await usage(someone('alice-cut'))).usage.settled);
});

test('a stop after a few words stops the bill: what was streamed is charged, and not the whole answer', limit, async (t) => {
    const user = someone('bob-stop');
    const page = await signedIn(t, user);
    // The whole answer first, at once, to know what it would come to.
    await write(page, SLOW.replace('300', '0'));
    await composed(page).waitFor();
    const whole = Number(await composed(page).getAttribute('data-charged'));
    const before = await usage(user);
    await meterIs(page, before.usage.settled);

    const stops = [];
    page.on('request', (request) => request.url().endsWith('/stop') && stops.push(request));
    await write(page, SLOW);
    await words(page, 3);
    await page.keyboard.press('Escape');
    await page.locator('[data-testid=stopped][data-billing=stopped]').waitFor();
    const charged = Number(await composed(page).getAttribute('data-charged'));
    const after = await usage(user);
    assert.equal(after.usage.settled - before.usage.settled, charged);
    assert.equal(after.usage.held, 0);
    assert.equal(after.requests, before.requests + 1);
    const shown = (await text(page)).split(' ').length;
    assert.ok(shown < WHOLE, `${shown} words`);
    // The prompt, and the words that are there, which are a token each: never the rest of the thirty.
    assert.ok(charged < whole && charged > whole - WHOLE, `${charged} of ${whole}`);
    await meterIs(page, after.usage.settled);
    assert.equal(stops.length, 1);
    await shot(page, 'stopped');
});

test('a stop in the first moment stops too', limit, async (t) => {
    const user = someone('bob-early');
    const page = await signedIn(t, user);
    await write(page, '[[tokens=30 first_ms=4000 delay_ms=300]] A kettle that thinks first.');
    await page.locator('#panel-Compose form').getByRole('button', { name: 'Stop' }).click();
    await page.getByRole('button', { name: 'Write', exact: true }).waitFor();
    const after = await usage(user);
    assert.equal(after.usage.held, 0, JSON.stringify(after.usage));
    await shot(page, 'stopped-early');
});

test('a conversation goes on, and outlives a reload', limit, async (t) => {
    const user = someone('bob-chat');
    const page = await signedIn(t, user);
    await page.getByRole('tab', { name: 'Chat' }).click();
    await shot(page, 'chat-empty');
    const message = page.getByRole('textbox', { name: 'Your message' });
    const receipts = page.locator('#panel-Chat').getByTestId('receipt');
    await message.fill('[[tokens=24 delay_ms=5]] A post on a kettle that sings.');
    await message.press('Enter');
    await receipts.nth(0).waitFor();
    await message.fill('[[tokens=14 delay_ms=5]] Shorter, and less formal.');
    await message.press('Enter');
    await receipts.nth(1).waitFor();
    const charged = await receipts.evaluateAll((all) => all.reduce((sum, { dataset }) => sum + Number(dataset.charged), 0));
    await meterIs(page, charged);
    assert.equal((await usage(user)).usage.settled, charged);
    await shot(page, 'chat');
    await page.reload();
    await page.getByRole('tab', { name: 'Chat' }).click();
    await receipts.nth(1).waitFor();
    assert.equal((await usage(user)).usage.settled, charged);
});

test('an answer that the page left is there after a reload, charged once', limit, async (t) => {
    const user = someone('bob-resume');
    const page = await signedIn(t, user);
    await page.getByRole('tab', { name: 'Chat' }).click();
    const message = page.getByRole('textbox', { name: 'Your message' });
    await message.fill('[[tokens=20 delay_ms=100]] A kettle that sings.');
    await message.press('Enter');
    await page.locator('.said.assistant .copy').filter({ hasText: / / }).waitFor();
    await page.reload();
    await page.getByRole('tab', { name: 'Chat' }).click();
    const look = page.getByRole('button', { name: 'Look again' });
    const receipt = page.locator('#panel-Chat').getByTestId('receipt');
    // Until it is there one looks again, as a person would.
    await look.or(receipt).first().waitFor();
    for (let settled = 0; settled === 0; ) settled = (await usage(user)).usage.settled;
    if (await look.isVisible()) await look.click();
    await receipt.waitFor();
    assert.match((await receipt.textContent()) ?? '', /not charged again/);
    assert.equal((await usage(user)).usage.settled, Number(await receipt.getAttribute('data-charged')));
});

test('a refusal in the conversation says what it says elsewhere', limit, async (t) => {
    const page = await signedIn(t, someone('carol-chat'));
    await page.getByRole('tab', { name: 'Chat' }).click();
    const message = page.getByRole('textbox', { name: 'Your message' });
    await message.fill('A kettle');
    await message.press('Enter');
    await page.locator('#panel-Chat [role=alert][data-code=quota_exceeded]').waitFor();
    await shot(page, 'chat-402');
});

const account = async (page) => {
    await page.getByRole('tab', { name: 'Account' }).click();
    await page.getByTestId('plan').waitFor();
};

test('a free user upgrades on the page of Stripe, pays, and is back on Pro with an invoice in sight', limit, async (t) => {
    const user = someone('alice-buys');
    const page = await signedIn(t, user);
    await account(page);
    assert.equal(await page.getByTestId('plan').textContent(), 'free');
    assert.equal(await page.getByTestId('invoice').count(), 0);
    await shot(page, 'account-free');
    await page.getByRole('button', { name: 'Upgrade to Pro' }).click();
    await page.waitForURL(/\/c\/pay\//);
    await shot(page, 'checkout');
    // Whoever turns back is where they were, and comes to the same page again.
    const checkout = page.url();
    await page.goBack();
    await account(page);
    await page.getByRole('button', { name: 'Upgrade to Pro' }).click();
    await page.waitForURL(checkout);
    await page.getByRole('button', { name: /^Pay/ }).click();
    await page.getByTestId('bought').waitFor();
    assert.doesNotMatch(page.url(), /bought/, 'a reload is no second thanks');
    assert.equal(await page.getByTestId('plan').textContent(), 'pro');
    assert.match((await page.getByTestId('invoice').textContent()) ?? '', /as of now\$20\.00$/);
    const now = await usage(user);
    assert.deepEqual([now.plan, now.status, now.invoice.estimateUsd], ['pro', 'active', '20.00']);
    await shot(page, 'account-pro');
    await page.getByRole('button', { name: 'Manage plan' }).click();
    await page.waitForURL(/\/p\/session\//);
    await shot(page, 'portal');
});

test('what was written is listed with its price, the newest first', limit, async (t) => {
    const page = await signedIn(t, someone('bob-lists'));
    for (const what of ['kettle', 'teapot']) {
        await write(page, `[[tokens=8 delay_ms=0]] A ${what}.`);
        await composed(page).waitFor();
        await page.getByRole('button', { name: 'Write', exact: true }).waitFor();
    }
    const newest = await composed(page).getAttribute('data-receipt');
    await account(page);
    const rows = page.locator('.requests tbody tr');
    await rows.nth(1).waitFor();
    assert.equal(await rows.count(), 2);
    assert.equal(await rows.nth(0).getAttribute('data-receipt'), newest);
    assert.match((await rows.nth(0).textContent()) ?? '', /gpt-6-luna\d+included$/);
    await shot(page, 'account-requests');
});

test('a refusal is listed with its reason', limit, async (t) => {
    const page = await signedIn(t, someone('carol-lists'));
    await write(page, 'A kettle that sings when the water boils.');
    await page.locator('[role=alert][data-code=quota_exceeded]').waitFor();
    await account(page);
    await page.locator('.denials [data-code=quota_exceeded]').waitFor();
    assert.match((await page.locator('.denials').textContent()) ?? '', /it needed [\d,]+ tokens, [\d,]+ were left/);
});

test('a cap of one\u2019s own is set, asked about when it is below what is used, and taken away', limit, async (t) => {
    const user = someone('bob-caps');
    const page = await signedIn(t, user);
    await write(page, '[[tokens=8 delay_ms=0]] A kettle.');
    await composed(page).waitFor();
    await account(page);
    const cap = page.getByRole('textbox', { name: 'Tokens of a period' });
    await cap.fill('1000000');
    await page.getByRole('button', { name: 'Set', exact: true }).click();
    await page.getByText('Your cap is 1,000,000 tokens.').waitFor();
    assert.equal((await usage(user)).spendCap, 1_000_000);
    await cap.fill('5');
    await cap.press('Enter');
    await page.locator('[role=alert][data-code=spend_cap_below_used]').waitFor();
    assert.equal((await usage(user)).spendCap, 1_000_000, 'not without a second word');
    await shot(page, 'account-cap');
    await page.getByRole('button', { name: 'Set it anyway' }).click();
    await page.getByText('Your cap is 5 tokens.').waitFor();
    assert.equal((await usage(user)).usage.left, 0);
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByText('There is no cap of your own any more.').waitFor();
    assert.equal((await usage(user)).spendCap, null);
});

test('everything can be done with the keyboard alone', limit, async (t) => {
    const page = await open(t);
    await page.getByRole('button', { name: 'Bob' }).waitFor();
    const focused = () =>
        page.evaluate(() => {
            const { activeElement } = document;
            if (!activeElement || activeElement === document.body) return '';
            return activeElement.getAttribute('id') ?? activeElement.textContent ?? '';
        });
    const reach = async (what) => {
        for (let steps = 0; steps < 20; steps += 1) {
            if (what.test(await focused())) return;
            await page.keyboard.press('Tab');
        }
        assert.fail(`Tab does not lead to ${what}`);
    };
    await reach(/Bob/);
    await page.keyboard.press('Enter');
    await page.getByRole('meter').waitFor();
    await page.locator('#prompt:focus').waitFor();
    await page.keyboard.type('[[tokens=8]] A kettle that sings.');
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(ring, 'solid', 'where one is can be seen');
    await page.keyboard.press('Control+Enter');
    await composed(page).waitFor();
    await page.keyboard.press('Shift+Tab');
    assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('type')), 'radio');
    await page.keyboard.press('ArrowRight');
    assert.ok(await page.getByRole('radio', { name: 'Product' }).isChecked());
    await page.keyboard.press('Shift+Tab');
    await reach(/tab-Compose/);
    await page.keyboard.press('ArrowRight');
    await page.getByRole('textbox', { name: 'Your message' }).waitFor();
    assert.equal(await page.getByRole('tab', { name: 'Chat' }).getAttribute('aria-selected'), 'true');
});

test('nothing is wider than a phone, in any state', limit, async (t) => {
    for (const width of [320, 375, 430]) {
        const options = { ...PHONE, viewport: { width, height: 760 } };
        const page = await open(t, options);
        await page.getByRole('button', { name: 'Alice' }).waitFor();
        assert.equal(await overflow(page), 0, `signing in at ${width}`);
        if (width === 320) await shot(page, 'sign-in-phone', { fullPage: true });
        await page.context().close();
        const in_ = await signedIn(t, someone(`bob-${width}`), options);
        assert.equal(await overflow(in_), 0, `empty at ${width}`);
        await in_.getByRole('radio', { name: 'Social post' }).check();
        await write(in_, `[[tokens=40 delay_ms=5]] ${'W'.repeat(300)} kettle`);
        await composed(in_).waitFor();
        assert.equal(await overflow(in_), 0, `written at ${width}`);
        await shot(in_, `phone-${width}`, { fullPage: true });
        await in_.getByRole('tab', { name: 'Chat' }).click();
        assert.equal(await overflow(in_), 0, `chatting at ${width}`);
        await account(in_);
        await in_.locator('.requests tbody tr').waitFor();
        assert.equal(await overflow(in_), 0, `the account at ${width}`);
        if (width === 375) await shot(in_, 'account-phone', { fullPage: true });
        await in_.context().close();
    }
});

test('it is dark where one likes it dark, and still where one likes it still', limit, async (t) => {
    const page = await signedIn(t, someone('bob-dark'), { ...DESKTOP, colorScheme: 'dark' });
    const background = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    assert.equal(background, 'rgb(16, 19, 26)');
    await write(page, '[[tokens=80 delay_ms=30]] Stainless steel kettle, sings when the water boils.');
    await words(page, 5);
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0, 'reduced motion is no motion');
    await composed(page).waitFor();
    await shot(page, 'dark');
});

test('the page lets no other origin in, and its server nothing out', limit, async (t) => {
    const page = await signedIn(t, someone('alice-safe'), DESKTOP, /Content Security Policy/);
    const ran = await page.evaluate(async () => {
        const script = document.createElement('script');
        script.textContent = 'window.injected = true';
        document.body.append(script);
        const image = await fetch('data:text/plain,x').then(() => 'fetched', () => 'refused');
        return [window.injected, image];
    }).catch((error) => error);
    assert.deepEqual(ran, [undefined, 'refused']);
});
