// The plan, what the next invoice comes to, the user's own cap, and every request with its price.

import { type FormEvent, useCallback, useEffect, useRef, useState } from 'react';
import * as api from './api';
import { count, day, moment, sentence, tokens } from './format';
import type { Session } from './session';

/** The plan that is sold; `infra/plans.toml`. */
const SOLD = { id: 'pro', name: 'Pro', about: '$20 a month with 500,000 tokens, then $2 a million' };
/** What the address says after paying. */
const BOUGHT = 'bought';
/** How often, and with what milliseconds between, the usage is asked for until the plan has changed. */
const LOOKS_MAX = 30;
const LOOK_MS = 1_000;

/** Whether somebody has just paid: `waiting` until the plan has changed. */
export type Returned = 'no' | 'waiting' | 'done' | 'slow';

/** Notices that the browser comes back from paying, and looks until the plan has changed. */
export function useReturn(session: Session, usage: api.Usage | undefined, refresh: () => void, show: () => void): Returned {
    const [returned, setReturned] = useState<Returned>(() =>
        new URLSearchParams(location.search).has(BOUGHT) ? 'waiting' : 'no',
    );
    const looks = useRef(0);
    const shown = useRef(show);
    shown.current = show;
    useEffect(() => {
        if (returned !== 'waiting') return;
        shown.current();
        history.replaceState(null, '', location.pathname);
        // Stripe tells the API, which takes a moment.
        const timer = setInterval(() => {
            looks.current += 1;
            if (looks.current > LOOKS_MAX) setReturned('slow');
            refresh();
        }, LOOK_MS);
        return () => clearInterval(timer);
    }, [returned, refresh, session]);
    useEffect(() => {
        if (usage && usage.status !== 'none') setReturned((before) => (before === 'no' ? before : 'done'));
    }, [usage]);
    return returned;
}

interface Props {
    session: Session;
    usage: api.Usage | undefined;
    returned: Returned;
    changed: (usage: api.Usage) => void;
}

export function Account({ session, usage, returned, changed }: Props) {
    if (!usage) return <div className="card account-card" aria-busy="true"><div className="skeleton line" /></div>;
    return (
        <div className="account">
            <Plan session={session} usage={usage} returned={returned} />
            <SpendCap session={session} usage={usage} changed={changed} />
            <Requests session={session} requests={usage.requests} />
        </div>
    );
}

function Plan({ session, usage, returned }: { session: Session; usage: api.Usage; returned: Returned }) {
    const { leaving, error, leave } = useLeave();
    const here = `${location.origin}${location.pathname}`;
    const upgrade = () => leave(() => api.checkout(session, SOLD.id, `${here}?${BOUGHT}`, here));
    const manage = () => leave(() => api.portal(session, here));
    const { invoice } = usage;
    return (
        <section className="card account-card" aria-labelledby="plan-title">
            <h2 id="plan-title">Plan</h2>
            {returned === 'waiting' && <p className="note" role="status">Thank you. Your plan changes in a moment…</p>}
            {returned === 'slow' && <p className="note" role="status">Your payment is on its way; the plan changes as soon as it is confirmed.</p>}
            {returned === 'done' && <p className="note good" role="status" data-testid="bought">Thank you. You are on <span className="plan-name">{usage.plan}</span> now.</p>}
            <p className="plan-line">
                <span className="plan" data-testid="plan">{usage.plan}</span>
                <Standing usage={usage} />
            </p>
            {invoice && (
                <dl className="invoice" data-testid="invoice">
                    {usage.endsAt !== invoice.at && <div><dt>The next month</dt><dd>{dollars(invoice.baseUsd)}</dd></div>}
                    <div><dt>{count(usage.overage.tokens)} tokens beyond the plan</dt><dd>{dollars(invoice.overageUsd)}</dd></div>
                    {!isNothing(invoice.planChangeUsd) && <div><dt>Your change of plan</dt><dd>{dollars(invoice.planChangeUsd)}</dd></div>}
                    {!isNothing(invoice.lateUsd) && <div><dt>Billed late</dt><dd>{dollars(invoice.lateUsd)}</dd></div>}
                    <div className="sum"><dt>{usage.endsAt === invoice.at ? 'Last invoice' : 'Invoice'} of {day(invoice.at)}, as of now</dt><dd>{dollars(invoice.estimateUsd)}</dd></div>
                </dl>
            )}
            {error && <p className="notice bad" role="alert">{error}</p>}
            {usage.status === 'none' ? (
                <div className="account-actions">
                    <button type="button" className="primary" disabled={leaving} onClick={upgrade}>
                        {leaving ? 'Opening Stripe…' : `Upgrade to ${SOLD.name}`}
                    </button>
                    <span className="aside">{SOLD.about}</span>
                </div>
            ) : (
                <div className="account-actions">
                    <button type="button" disabled={leaving} onClick={manage}>{leaving ? 'Opening Stripe…' : 'Manage plan'}</button>
                    <span className="aside">Invoices, card, cancel</span>
                </div>
            )}
        </section>
    );
}

const isNothing = (usd: string) => /^0\.0+$/.test(usd);
const dollars = (usd: string) => (usd.startsWith('-') ? `−$${usd.slice(1)}` : `$${usd}`);

function Standing({ usage }: { usage: api.Usage }) {
    switch (usage.status) {
        case 'none':
            return <span>{count(usage.usage.cap)} tokens a month, at no charge</span>;
        case 'active':
            return (
                <span>
                    {usage.endsAt ? `Canceled: it ends on ${day(usage.endsAt)}.` : 'Paid.'} {count(usage.usage.included)} tokens included, up to {count(usage.usage.cap)}
                </span>
            );
        case 'past_due':
            return <span className="unpaid">An invoice is unpaid. Please pay by {day(usage.payBy!)}.</span>;
        case 'overdue':
            return <span className="unpaid">An invoice is unpaid, so nothing can be written until it is paid.</span>;
    }
}

/** Leaves for another page, or says why not. */
function useLeave() {
    const [leaving, setLeaving] = useState(false);
    const [error, setError] = useState<string>();
    const leave = async (where: () => Promise<{ url: string }>) => {
        setLeaving(true);
        setError(undefined);
        try {
            location.assign((await where()).url);
        } catch (error) {
            setError(said(error));
            setLeaving(false);
        }
    };
    // A page that is come back to by the browser's button is as it was left.
    useEffect(() => {
        const back = (event: PageTransitionEvent) => event.persisted && setLeaving(false);
        addEventListener('pageshow', back);
        return () => removeEventListener('pageshow', back);
    }, []);
    return { leaving, error, leave };
}

function SpendCap({ session, usage, changed }: { session: Session; usage: api.Usage; changed: (usage: api.Usage) => void }) {
    const [text, setText] = useState(usage.spendCap === null ? '' : String(usage.spendCap));
    const [busy, setBusy] = useState(false);
    const [told, setTold] = useState<string>();
    const [below, setBelow] = useState<api.Problem>();
    const [error, setError] = useState<string>();

    const set = async (tokens: number | null, confirm: boolean) => {
        setBusy(true);
        setTold(undefined);
        setBelow(undefined);
        setError(undefined);
        try {
            const after = await api.setSpendCap(session, tokens, confirm);
            changed(after);
            setText(after.spendCap === null ? '' : String(after.spendCap));
            setTold(after.spendCap === null ? 'There is no cap of your own any more.' : `Your cap is ${count(after.spendCap)} tokens.`);
        } catch (error) {
            const problem = error instanceof Error ? api.problemOf(error) : undefined;
            if (problem?.code === 'spend_cap_below_used') setBelow(problem);
            else setError(said(error));
        } finally {
            setBusy(false);
        }
    };
    const wanted = /^\d{1,15}$/.test(text.trim()) ? Number(text.trim()) : undefined;
    const submit = (event: FormEvent) => {
        event.preventDefault();
        if (wanted === undefined) setError('Give a whole number of tokens.');
        else void set(wanted, false);
    };
    return (
        <section className="card account-card" aria-labelledby="cap-title">
            <h2 id="cap-title">Spend cap</h2>
            <p>Nothing is written beyond it, whatever your plan allows. It counts for each period.</p>
            <form className="cap" onSubmit={submit}>
                <label className="field">
                    Tokens of a period
                    <input inputMode="numeric" autoComplete="off" value={text} placeholder="None" onChange={(event) => setText(event.target.value)} />
                </label>
                <button disabled={busy || text.trim() === ''}>Set</button>
                {usage.spendCap !== null && <button type="button" className="quiet" disabled={busy} onClick={() => void set(null, false)}>Remove</button>}
            </form>
            {told && <p className="note good" role="status">{told}</p>}
            {error && <p className="notice bad" role="alert">{error}</p>}
            {below && (
                <div className="notice pay" role="alert" data-code={below.code}>
                    <h3>{below.title}</h3>
                    <p>{tokens(below.used ?? 0)} are used{below.held ? ` and ${count(below.held)} held` : ''}: with this cap nothing can be written until the next period.</p>
                    <p className="notice-end">
                        <button type="button" disabled={busy} onClick={() => void set(below.limit ?? 0, true)}>Set it anyway</button>
                    </p>
                </div>
            )}
        </section>
    );
}

/** `requests` is how many have ended: with another one the list is asked for anew. */
function Requests({ session, requests }: { session: Session; requests: number }) {
    const [page, setPage] = useState<api.Receipts>();
    const [error, setError] = useState<string>();
    const [busy, setBusy] = useState(false);
    const load = useCallback(
        async (before: api.Receipts | undefined) => {
            setBusy(true);
            setError(undefined);
            try {
                const next = await api.receipts(session, before?.next ?? null);
                setPage(before ? { ...before, receipts: [...before.receipts, ...next.receipts], next: next.next } : next);
            } catch (error) {
                setError(said(error));
            } finally {
                setBusy(false);
            }
        },
        [session],
    );
    useEffect(() => void load(undefined), [load, requests]);
    return (
        <section className="card account-card" aria-labelledby="requests-title">
            <h2 id="requests-title">Requests</h2>
            {error && <p className="notice bad" role="alert">{error} <button type="button" className="quiet" onClick={() => void load(page)}>Try again</button></p>}
            {!page && !error && <div className="skeleton line" />}
            {page && page.denials.length > 0 && (
                <ul className="denials" aria-label="Refused lately">
                    {page.denials.map((denial) => (
                        <li key={denial.code} data-code={denial.code}>
                            <strong>{denial.reason}</strong>{' '}
                            <span>
                                {moment(denial.at)}: it needed {tokens(denial.needed)}
                                {denial.left !== undefined && `, ${count(denial.left)} were left`}
                            </span>
                        </li>
                    ))}
                </ul>
            )}
            {page && page.lateUsage.length > 0 && (
                <ul className="denials" aria-label="Billed later">
                    {page.lateUsage.map((late) => (
                        <li key={late.at}>{tokens(late.tokens)} of the period from {day(late.periodStart)} came too late for their invoice and are on the next one.</li>
                    ))}
                </ul>
            )}
            {page && page.receipts.length === 0 && <p className="empty">Nothing was written yet.</p>}
            {page && page.receipts.length > 0 && (
                <table className="requests">
                    <caption className="hidden">What each request cost, the newest first</caption>
                    <thead>
                        <tr><th scope="col">When</th><th scope="col">What became of it</th><th scope="col" className="number">Tokens</th><th scope="col" className="number">Cost</th></tr>
                    </thead>
                    <tbody>
                        {page.receipts.map((request) => (
                            <tr key={request.id} data-receipt={request.id}>
                                <td>{moment(request.at)}</td>
                                <td>{became(request)}</td>
                                <td className="number">{count(request.charged)}</td>
                                <td className="number">{request.costUsd === undefined ? '' : price(request.costUsd)}</td>
                            </tr>
                        ))}
                    </tbody>
                </table>
            )}
            {page?.next && <button type="button" disabled={busy} onClick={() => void load(page)}>Show more</button>}
        </section>
    );
}

const price = (usd: string) => (isNothing(usd) ? 'included' : `$${usd}`);

function became(request: api.PastRequest): string {
    switch (request.outcome) {
        case 'settled':
            return request.model ?? 'Written';
        case 'swept':
            return 'Its end was never seen: not charged';
        case 'void':
            return 'Never answered: not charged';
        case 'imported':
            return 'From before';
    }
}

function said(error: unknown): string {
    if (!(error instanceof Error)) return 'Something went wrong. Please try again.';
    const problem = api.problemOf(error);
    return problem ? `${problem.title}. ${sentence(problem.detail)}` : 'The server cannot be reached. Check your connection, then try again.';
}
