// The real hooks of one version of the AI SDK, through the modules of docs/FRONTEND.md and by themselves, against the API.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { as, events, GENERATE, generate, settled, soon, stop } from './api.mjs';
import { signIn } from './clerk.mjs';
import { host, render, until } from './host.mjs';
import { cases } from './cases.mjs';

const major = Number(process.env.AI_SDK_MAJOR);
process.env.NEXT_PUBLIC_INKMETER_URL = process.env.INKMETER_URL;
const { useCompletion, useChat } = await import('@ai-sdk/react');
const ai = await import('ai');
const snippet = (name) => import(new URL(`../.snippets/${name}.mjs`, import.meta.url));
const { problemOf, quote, usage } = await snippet('inkmeter');

/** Somebody of this version's and this run's own: no test takes another's rate or quota. */
const mine = `v${major}-${Date.now().toString(36)}`;
const [bob, carol] = [`bob-${mine}`, `carol-${mine}`];
const { test, run } = cases();

const KETTLE = '[[tokens=12 delay_ms=5]] A kettle that sings.';
const CUT = '[[tokens=12 cut=5]] A kettle that breaks.';
const SLOW = '[[tokens=30 delay_ms=300]] A kettle that takes its time.';

/** What the API streams for this prompt, as plain text. */
const textOf = async (prompt) => (await generate(bob, { prompt }, { query: '?protocol=text' })).text();

const completion = (options = {}) =>
    host(() => useCompletion({ api: GENERATE, fetch: as(bob), body: { type: 'rewrite' }, ...options }));

async function completes(options) {
    const expected = await textOf(KETTLE);
    const hook = completion(options);
    await hook.until((now) => now.complete, 'the hook');
    await soon(hook.now.complete(KETTLE), 'the answer');
    const now = await hook.until((now) => !now.isLoading && now.completion !== '', 'the end');
    assert.equal(now.error, undefined);
    assert.equal(now.completion, expected);
    hook.gone();
}

async function refuses(options) {
    const hook = completion({ ...options, fetch: as(carol) });
    await hook.until((now) => now.complete, 'the hook');
    void hook.now.complete('A kettle');
    const { error } = await hook.until((now) => now.error, 'the error');
    const problem = problemOf(error);
    assert.equal(problem?.code, 'quota_exceeded', error.message);
    assert.equal(problem.status, 402);
    assert.ok(problem.detail.length > 20 && problem.title && problem.retryAfter > 0);
    hook.gone();
}

async function breaks(options) {
    const hook = completion(options);
    await hook.until((now) => now.complete, 'the hook');
    void hook.now.complete(CUT);
    const now = await hook.until((now) => now.error && !now.isLoading, 'the error');
    assert.notEqual(now.completion, '', 'the text so far is kept');
    assert.equal(problemOf(now.error), undefined);
    assert.ok(now.error.message.length > 20, now.error.message);
    hook.gone();
}

if (major === 4) {
    const data = { api: `${GENERATE}?protocol=data` };
    const text = { api: `${GENERATE}?protocol=text`, streamProtocol: 'text' };
    test('useCompletion completes (data)', () => completes(data));
    test('useCompletion completes (text)', () => completes(text));
    test('useCompletion shows a refusal (data)', () => refuses(data));
    test('useCompletion shows a refusal (text)', () => refuses(text));
    test('f28_a_cut_is_an_error_in_useCompletion_and_the_text_is_kept (data)', () => breaks(data));
    test('a cut ends the text with its sentence (text)', async () => {
        const whole = await textOf(CUT);
        assert.match(whole, /\n\n\[.{20,}\]$/);
    });
    test('useChat completes, with the receipt in its annotations (data)', async () => {
        const chat = host(() => useChat({ ...data, fetch: as(bob), body: { type: 'rewrite' } }));
        await chat.until((now) => now.append, 'the hook');
        void chat.now.append({ role: 'user', content: KETTLE });
        const now = await chat.until((now) => now.status === 'ready' && now.messages.length === 2, 'the answer');
        assert.notEqual(now.messages[1].content, '');
        const [said] = now.messages[1].annotations;
        assert.equal(said.charged, said.usage.totalTokens);
        assert.ok(said.receipt);
        chat.gone();
    });
    test('f28_a_cut_is_an_error_in_useChat_and_the_text_is_kept (data)', async () => {
        const chat = host(() => useChat({ ...data, fetch: as(bob), body: { type: 'rewrite' } }));
        await chat.until((now) => now.append, 'the hook');
        void chat.now.append({ role: 'user', content: CUT });
        const now = await chat.until((now) => now.error, 'the error');
        assert.notEqual(now.messages.at(-1).content, '');
        assert.equal(now.messages.at(-1).role, 'assistant');
        chat.gone();
    });
    test('FRONTEND.md: useWriter4', async () => {
        const { useWriter4 } = await snippet('useWriter4');
        signIn(bob);
        const hook = host(useWriter4);
        await hook.until((now) => now.complete, 'the hook');
        await soon(hook.now.complete(KETTLE), 'the answer');
        assert.equal((await hook.until((now) => !now.isLoading && now.completion !== '', 'the end')).error, undefined);
        signIn(carol);
        void hook.now.complete('A kettle');
        const { problem } = await hook.until((now) => now.problem, 'the refusal');
        assert.equal(problem.code, 'quota_exceeded');
        hook.gone();
    });
} else {
    test('useCompletion completes', () => completes());
    test('useCompletion completes (text)', () => completes({ api: `${GENERATE}?protocol=text`, streamProtocol: 'text' }));
    test('useCompletion shows a refusal', () => refuses());
    test('f28_a_cut_is_an_error_in_useCompletion_and_the_text_is_kept', () => breaks());

    const { useConversation } = await snippet('useConversation');
    const conversation = (user, ...args) => {
        signIn(user);
        return host(() => useConversation(...args));
    };
    test('FRONTEND.md: useConversation completes twice, with a receipt each', async () => {
        const before = await settled(bob);
        const chat = conversation(bob);
        await chat.until((now) => now.say, 'the hook');
        void chat.now.say(KETTLE, { type: 'rewrite' });
        await chat.until((now) => now.status === 'ready' && now.messages.length === 2, 'the first answer');
        void chat.now.say('[[tokens=9]] Shorter.', { type: 'rewrite', tone: 'bold' });
        const { messages } = await chat.until((now) => now.status === 'ready' && now.messages.length === 4, 'the second');
        const answers = messages.filter(({ role }) => role === 'assistant');
        for (const { metadata, parts } of answers) {
            assert.notEqual(parts.find(({ type }) => type === 'text').text, '');
            assert.equal(metadata.charged, metadata.usage.totalTokens);
        }
        const charged = answers.reduce((sum, { metadata }) => sum + metadata.charged, 0);
        assert.equal(await settled(bob), before + charged);
        assert.notEqual(answers[0].metadata.receipt, answers[1].metadata.receipt);
        chat.gone();
    });
    test('FRONTEND.md: useConversation shows a refusal', async () => {
        const chat = conversation(carol);
        await chat.until((now) => now.say, 'the hook');
        void chat.now.say('A kettle', { type: 'rewrite' });
        const { problem } = await chat.until((now) => now.problem, 'the refusal');
        assert.equal(problem.code, 'quota_exceeded');
        chat.gone();
    });
    test('f28_a_cut_is_an_error_in_useChat_and_the_text_is_kept', async () => {
        const chat = conversation(bob);
        await chat.until((now) => now.say, 'the hook');
        void chat.now.say(CUT, { type: 'rewrite' });
        const { messages, error } = await chat.until((now) => now.error, 'the error');
        assert.equal(problemOf(error), undefined);
        assert.ok(error.message.length > 20, error.message);
        assert.equal(messages.at(-1).role, 'assistant');
        assert.notEqual(messages.at(-1).parts.find(({ type }) => type === 'text').text, '');
        chat.gone();
    });
    test('FRONTEND.md: useConversation resumes an answer that the page did not see, uncharged', async () => {
        const key = randomUUID();
        const body = { messages: [{ id: 'm1', role: 'user', parts: [{ type: 'text', text: KETTLE }] }] };
        const seen = await events(await generate(bob, body, { key }));
        const text = seen.chunks.map(({ delta }) => delta ?? '').join('');
        const before = await settled(bob);
        sessionStorage.setItem('inkmeter.last', key);
        const chat = conversation(bob, body.messages, true);
        const { messages, error } = await chat.until((now) => now.messages.length === 2 && now.status === 'ready', 'the replay');
        assert.equal(error, undefined);
        assert.equal(messages[1].parts.find(({ type }) => type === 'text').text, text);
        assert.equal(messages[1].metadata.replayed, true);
        assert.equal(await settled(bob), before);
        chat.gone();
    });
    test('FRONTEND.md: useConversation resumes nothing where there is nothing', async () => {
        sessionStorage.setItem('inkmeter.last', randomUUID());
        const heard = [];
        const { fetch } = globalThis;
        globalThis.fetch = async (input, init) => {
            const answer = await fetch(input, init);
            if (String(input).endsWith('/stream')) heard.push(answer.status);
            return answer;
        };
        const chat = conversation(bob, [{ id: 'm1', role: 'user', parts: [{ type: 'text', text: KETTLE }] }], true);
        try {
            const asked = () => heard.length > 0 && chat.now?.status === 'ready';
            await soon((async () => { while (!asked()) await new Promise((next) => setTimeout(next, 5)); })(), 'the 204');
        } finally {
            globalThis.fetch = fetch;
        }
        assert.deepEqual([heard[0], chat.now.error, chat.now.messages.length], [204, undefined, 1]);
        chat.gone();
    });
    test('FRONTEND.md: useConversation stops an answer and its bill', async () => {
        const chat = conversation(bob);
        await chat.until((now) => now.say, 'the hook');
        void chat.now.say(SLOW, { type: 'rewrite' });
        const words = ({ messages }) => messages[1]?.parts.find(({ type }) => type === 'text')?.text ?? '';
        await chat.until((now) => words(now).includes(' '), 'two words');
        await soon(chat.now.stop(), 'the stop');
        const { messages, error } = await chat.until((now) => now.status === 'ready', 'the end');
        assert.equal(error, undefined);
        const { metadata } = messages.at(-1);
        assert.ok(metadata.charged > 0 && metadata.usage.completionTokens < 30, JSON.stringify(metadata));
        chat.gone();
    });
    test('FRONTEND.md: useWriter stops an answer and its bill, and then there is a quote', async () => {
        const { useWriter } = await snippet('useWriter');
        signIn(bob);
        const before = await usage(as(bob));
        const hook = host(useWriter);
        await hook.until((now) => now.write, 'the hook');
        void hook.now.write(SLOW, { type: 'rewrite' });
        await hook.until((now) => now.completion.includes(' '), 'two words');
        await soon(hook.now.stop(), 'the stop');
        const now = await hook.until((now) => !now.isLoading, 'the end');
        assert.equal(now.error, undefined);
        assert.notEqual(now.completion, '');
        const after = await usage(as(bob));
        const wish = { prompt: SLOW, type: 'rewrite' };
        const priced = await quote(as(bob), wish);
        assert.ok(priced.passes && priced.tokens.most >= priced.promptTokens.most, JSON.stringify(priced));
        const charged = after.usage.settled - before.usage.settled;
        assert.ok(charged > 0 && after.requests === before.requests + 1);
        // The whole answer has 30 tokens: what was charged is the prompt and less than that.
        const whole = await events(await generate(bob, { prompt: SLOW.replace('300', '0') }));
        const { usage: took } = whole.chunks.find(({ messageMetadata }) => messageMetadata).messageMetadata;
        assert.ok(charged < took.totalTokens, `${charged} of ${took.totalTokens}`);
        const refused = await quote(as(carol), wish);
        assert.equal(refused.passes, false);
        assert.equal(refused.refusal.code, 'quota_exceeded');
        hook.gone();
    });
    test('FRONTEND.md: Writer writes, and shows a refusal', async () => {
        const { Writer } = await snippet('Writer');
        signIn(bob);
        const place = render(Writer);
        const box = await until(() => place.querySelector('textarea'), 'the form');
        const type = (text) => {
            Object.getOwnPropertyDescriptor(window.HTMLTextAreaElement.prototype, 'value').set.call(box, text);
            box.dispatchEvent(new window.Event('input', { bubbles: true }));
        };
        const press = async () => (await until(() => place.querySelector('button:not([type])'), 'the button')).click();
        type(KETTLE);
        await press();
        await until(() => place.querySelector('output').textContent.length > 20, 'the text');
        await until(() => place.querySelector('button:not([type])'), 'the end');
        assert.equal(place.querySelector('[role=alert]'), null);
        signIn(carol);
        await press();
        const alert = await until(() => place.querySelector('[role=alert]'), 'the refusal');
        assert.match(alert.textContent, /used up/);
    });

    // Each kind of stream that there is, chunk by chunk, by the SDK's own schema.
    const chunks = (prompt, body) => generate(bob, { prompt, ...body }).then(events);
    const streams = {
        plain: () => chunks(KETTLE),
        variants: () => chunks(KETTLE, { variants: 3, tone: 'bold', model: 'gpt-5.4-nano' }),
        conversation: () => chunks(undefined, { messages: [{ role: 'user', content: KETTLE }] }),
        length: () => chunks('[[tokens=4000 delay_ms=0]] Long.'),
        'no usage': () => chunks('[[tokens=8 no_usage]] Uncounted.'),
        cut: () => chunks(CUT),
        'in-band error': () => chunks('[[tokens=12 inband=4]] Says so.'),
        moderated: () => chunks('[[tokens=12 moderation]] Says no.'),
        silent: () => chunks('[[tokens=2 delay_ms=16500]] In a moment.'),
        clamped: () => clamped(),
        stopped: () => stopped(),
        replayed: () => replayed(),
    };
    const endings = { cut: 'error', 'in-band error': 'error', stopped: 'abort' };
    for (const [kind, stream] of Object.entries(streams)) {
        test(`every chunk is valid: ${kind}`, async () => {
            const { text, chunks, comments, done } = await stream();
            assert.ok(done, 'it ends with [DONE]');
            assert.equal(chunks.at(-1).type, endings[kind] ?? 'finish', JSON.stringify(chunks.at(-1)));
            assert.ok(kind !== 'silent' || comments.length > 0, 'it is kept alive');
            const said = chunks.find(({ messageMetadata }) => messageMetadata)?.messageMetadata;
            assert.ok(kind !== 'clamped' || said?.clamped, 'it is clamped');
            assert.ok(kind !== 'replayed' || said?.replayed, 'it is replayed');
            const parsed = ai.parseJsonEventStream({ stream: new Blob([text]).stream(), schema: ai.uiMessageChunkSchema });
            let count = 0;
            for await (const part of parsed) {
                assert.ok(part.success, `${JSON.stringify(part.rawValue)}: ${part.error?.message}`);
                count += 1;
            }
            assert.equal(count, chunks.length);
        });
    }
    const clamped = async () => {
        const user = `alice-${mine}`;
        await generate(user, { prompt: `[[prompt=exact:17000 tokens=2]] ${'x'.repeat(17_200)}` }).then(events);
        // What is left goes in steps, until an answer is shortened.
        for (let step = 0; step < 6; step += 1) {
            const stream = await events(await generate(user, { prompt: '[[prompt=exact:300 completion=500 tokens=9]] Little is left.' }));
            if (stream.chunks.some(({ messageMetadata }) => messageMetadata?.clamped)) return stream;
        }
        throw new Error('no answer was shortened');
    };
    const stopped = async () => {
        const key = randomUUID();
        const answer = await generate(bob, { prompt: SLOW }, { key });
        assert.equal((await stop(bob, key)).status, 202);
        return events(answer);
    };
    const replayed = async () => {
        const key = randomUUID();
        await events(await generate(bob, { prompt: KETTLE }, { key }));
        const again = await generate(bob, { prompt: KETTLE }, { key });
        assert.equal(again.headers.get('idempotency-replayed'), 'true');
        return events(again);
    };
}

await run();
