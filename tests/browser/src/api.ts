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
    /** With `past_due`: where to pay. */
    portalUrl?: string;
    /** With `spend_cap_below_used`. */
    used?: number;
    held?: number;
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
    status: 'none' | 'active' | 'past_due' | 'overdue';
    payBy: string | null;
    /** When a canceled subscription ends. */
    endsAt: string | null;
    usage: { settled: number; held: number; left: number; cap: number; included: number };
    resetsAt: string;
    overage: { tokens: number; perMillionUsd?: string; costUsd: string };
    /** The next invoice as it would be now. */
    invoice: {
        estimateUsd: string;
        baseUsd: string;
        overageUsd: string;
        planChangeUsd: string;
        lateUsd: string;
        at: string;
    } | null;
    requests: number;
    spendCap: number | null;
}

/** One request, as `GET /v1/receipts` lists it. */
export interface PastRequest {
    id: string;
    at: string;
    outcome: 'settled' | 'swept' | 'void' | 'imported';
    model?: string;
    charged: number;
    absorbed: number;
    costUsd?: string;
}

export interface Receipts {
    receipts: PastRequest[];
    denials: { code: string; reason: string; at: string; needed: number; left?: number; until?: string }[];
    lateUsage: { periodStart: string; tokens: number; at: string; invoiceItem?: string }[];
    next: string | null;
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
    return answered(await authorized(session)('/v1/usage'));
}

/** What a request would take at most, and whether it would pass now. Nothing if it cannot be known. */
export async function quote(session: Session, wish: Wish, signal: AbortSignal): Promise<Quote | undefined> {
    const headers = { 'content-type': 'application/json' };
    const init = { method: 'POST', headers, body: JSON.stringify(wish), signal };
    const answer = await authorized(session)('/v1/quote', init);
    return answer.ok ? answer.json() : undefined;
}

/** What a refusal of the API says, as an error. */
async function answered<T>(answer: Response): Promise<T> {
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
}

async function send<T>(session: Session, method: string, path: string, body: object): Promise<T> {
    const headers = { 'content-type': 'application/json' };
    return answered(await authorized(session)(path, { method, headers, body: JSON.stringify(body) }));
}

/** Stripe's page where a plan is bought; from it the browser comes back to one of these addresses. */
export const checkout = (session: Session, plan: string, successUrl: string, cancelUrl: string) =>
    send<{ url: string; expiresAt: string }>(session, 'POST', '/v1/checkout', { plan, successUrl, cancelUrl });

/** Stripe's page where invoices are paid and a subscription is canceled. */
export const portal = (session: Session, returnUrl: string) =>
    send<{ url: string }>(session, 'POST', '/v1/portal', { returnUrl });

/** Sets the user's own cap, or takes it away. Below what is used it takes `confirm`. */
export const setSpendCap = (session: Session, tokens: number | null, confirm: boolean) =>
    send<Usage>(session, 'PUT', '/v1/spend-cap', { tokens, confirm });

export async function receipts(session: Session, cursor: string | null): Promise<Receipts> {
    const query = cursor ? `&cursor=${encodeURIComponent(cursor)}` : '';
    return answered(await authorized(session)(`/v1/receipts?limit=20${query}`));
}
