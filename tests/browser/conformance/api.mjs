// The running local cloud: its test users, and its answers as they are on the wire.

export const URL_ = process.env.INKMETER_URL;
export const GENERATE = `${URL_}/v1/generate`;

/** Fails where it would hang. */
export const LIMIT_MS = 60_000;

/** A fresh token of a test user. */
export async function token(user) {
    const answer = await fetch(`${URL_}/local/sign-in`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ user }),
    });
    if (!answer.ok) throw new Error(`${user} cannot sign in: ${await answer.text()}`);
    return (await answer.json()).token;
}

/** `fetch` as a test user. */
export function as(user) {
    return async (input, init) => {
        const headers = new Headers(init?.headers);
        headers.set('authorization', `Bearer ${await token(user)}`);
        return fetch(input, { ...init, headers });
    };
}

export async function settled(user) {
    const answer = await as(user)(`${URL_}/v1/usage`);
    return (await answer.json()).usage.settled;
}

/** One request; `key` is its Idempotency-Key. */
export function generate(user, body, { key, query = '' } = {}) {
    const headers = { 'content-type': 'application/json', ...(key && { 'idempotency-key': key }) };
    const init = { method: 'POST', headers, body: JSON.stringify({ type: 'rewrite', ...body }) };
    return as(user)(`${GENERATE}${query}`, init);
}

export const stop = (user, id) => as(user)(`${GENERATE}/${encodeURIComponent(id)}/stop`, { method: 'POST' });

/** The events of a UI message stream as JSON, and the comments between them. */
export async function events(answer) {
    const text = await answer.text();
    const lines = text.split('\n');
    const comments = lines.filter((line) => line.startsWith(':'));
    const data = lines.filter((line) => line.startsWith('data: ')).map((line) => line.slice('data: '.length));
    return { text, comments, done: data.at(-1) === '[DONE]', chunks: data.filter((line) => line !== '[DONE]').map((line) => JSON.parse(line)) };
}

/** Rejects after the limit. */
export function soon(promise, what) {
    let timer;
    const limit = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`it takes too long: ${what}`)), LIMIT_MS);
    });
    return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}
