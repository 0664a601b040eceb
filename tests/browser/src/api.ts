// The API as this page uses it. `docs/FRONTEND.md` explains each part.

import type { Session } from './session';

export const GENERATE = '/v1/generate';
/** How often a wish to stop is sent that was faster than its request, and the milliseconds between. */
const STOP_TRIES_MAX = 5;
const STOP_PAUSE_MS = 1_000;
/** Milliseconds that a stopped stream may take to end with its receipt, before it is cut on this side. */
const STOP_PATIENCE_MS = 6_000;

/** What a refusal says (RFC 9457), and what the AI SDK's hooks have in `error.message`. */
export interface Problem {
    title: string;
    status: number;
    detail: string;
    code: string;
    field?: string;
    /** Seconds. */
    retryAfter?: number;
    upperBound?: boolean;
    limit?: number;
    left?: number;
    needed?: number;
    resetsAt?: string;
    receipt?: string;
}

export interface Metadata {
    usage: { promptTokens: number; completionTokens: number; totalTokens: number; estimated?: boolean };
    receipt?: string;
    charged?: number;
    clamped: boolean;
    model?: string;
    replayed?: boolean;
}

export interface Usage {
    plan: string;
    usage: { settled: number; held: number; left: number; cap: number; included: number };
    resetsAt: string;
    overage: { tokens: number; perMillionUsd?: string; costUsd: string };
    requests: number;
}

export interface Quote {
    promptTokens: { most: number; estimate: number };
    outputTokens: { most: number };
    tokens: { most: number };
    costUsd: { most: string };
    passes: boolean;
    clamped: boolean;
    outputCap?: number;
    refusal?: Pick<Problem, 'code' | 'detail' | 'retryAfter'>;
}

export interface Wish {
    prompt: string;
    type: string;
    [option: string]: unknown;
}

/** The problem that an error of a hook carries, if it is an answer of the API. */
export function problemOf(error: Error): Problem | undefined {
    try {
        const problem = JSON.parse(error.message);
        return typeof problem?.code === 'string' ? problem : undefined;
    } catch {
        return undefined;
    }
}

/** A key for one request: its repeats are the same request, and it is what `stop` names. */
export const newKey = (): string => crypto.randomUUID();

/** `fetch` with a fresh session token, which is what the hooks are given. */
export function authorized(session: Session, heard?: (metadata: Metadata) => void): typeof fetch {
    return async (input, init) => {
        const headers = new Headers(init?.headers);
        headers.set('authorization', `Bearer ${await session.token()}`);
        const answer = await fetch(input, { ...init, headers });
        if (!heard || !answer.ok || !answer.body) return answer;
        return new Response(answer.body.pipeThrough(listening(heard)), answer);
    };
}

/** Passes a UI message stream on as it is, and tells the metadata in it, which `useCompletion` skips. */
function listening(heard: (metadata: Metadata) => void): TransformStream<Uint8Array, Uint8Array> {
    const decoder = new TextDecoder();
    let line = '';
    return new TransformStream({
        transform(bytes, controller) {
            controller.enqueue(bytes);
            const lines = (line + decoder.decode(bytes, { stream: true })).split('\n');
            line = lines.pop() ?? '';
            for (const text of lines) {
                if (!text.startsWith('data: {')) continue;
                const { messageMetadata } = JSON.parse(text.slice('data: '.length));
                if (messageMetadata) heard(messageMetadata);
            }
        },
    });
}

/**
 * Stops an answer and its bill. The stream then ends by itself, with the receipt of what was written; `cut` (the hook's
 * own `stop`) is for the case that it does not. `keepalive` lets the request outlive the page.
 */
export async function stopAnswer(session: Session, key: string, cut: () => void): Promise<boolean> {
    const request = async () => {
        const token = await session.token();
        const headers = { authorization: `Bearer ${token}` };
        const url = `${GENERATE}/${encodeURIComponent(key)}/stop`;
        return (await fetch(url, { method: 'POST', keepalive: true, headers })).status;
    };
    let status = await request().catch(() => 0);
    // 404: the wish was faster than its request, which is on its way.
    for (let tries = 1; status === 404 && tries < STOP_TRIES_MAX; tries += 1) {
        await new Promise((resolve) => setTimeout(resolve, STOP_PAUSE_MS));
        status = await request().catch(() => 0);
    }
    const stopped = status === 202;
    if (stopped) setTimeout(cut, STOP_PATIENCE_MS);
    else cut();
    return stopped;
}

export async function usage(session: Session): Promise<Usage> {
    const answer = await authorized(session)('/v1/usage');
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
}

/** What a request would take at most, and whether it would pass now. Nothing if it cannot be known. */
export async function quote(session: Session, wish: Wish, signal: AbortSignal): Promise<Quote | undefined> {
    const headers = { 'content-type': 'application/json' };
    const init = { method: 'POST', headers, body: JSON.stringify(wish), signal };
    const answer = await authorized(session)('/v1/quote', init);
    return answer.ok ? answer.json() : undefined;
}
