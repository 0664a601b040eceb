import type { Usage } from './api';
import { count, day } from './format';

interface Props {
    usage: Usage | undefined;
    failed: boolean;
    retry: () => void;
    /** Shows where the plan is changed. */
    manage: () => void;
}

/** What is used of the period, as `GET /v1/usage` tells it. */
export function Meter({ usage, failed, retry, manage }: Props) {
    if (!usage) {
        return (
            <section className="meter" aria-label="Usage" aria-busy={!failed}>
                {failed ? (
                    <p className="meter-line">
                        <span>Your usage cannot be shown right now.</span>
                        <button type="button" className="quiet" onClick={retry}>Try again</button>
                    </p>
                ) : (
                    <div className="skeleton meter-skeleton" />
                )}
            </section>
        );
    }
    const { settled, held, left, cap, included } = usage.usage;
    const beyond = Math.max(0, settled - included);
    // What a plan includes is what a person counts with; the cap of one that is billed by use is far above it.
    const rest = cap > included ? `${count(Math.max(0, included - settled - held))} included left` : `${count(left)} left`;
    const share = (tokens: number) => `${Math.min(100, (100 * tokens) / Math.max(1, included))}%`;
    const level = left * 20 < cap ? 'out' : settled * 5 > included * 4 ? 'low' : '';
    return (
        <section className={`meter ${level}`} aria-label="Usage">
            <p className="meter-line">
                <span>
                    <span className="plan">{usage.plan}</span>
                    <strong data-testid="settled" data-tokens={settled}>{count(settled)}</strong> of {count(included)} tokens
                    {held > 0 && <span className="held-text"> · {count(held)} held</span>}
                </span>
                <span className="meter-end">
                    {beyond > 0 ? `${count(beyond)} beyond the plan, $${usage.overage.costUsd}` : rest}
                    {' · '}resets {day(usage.resetsAt)}
                </span>
            </p>
            <div
                className="track"
                role="meter"
                aria-label="Tokens used"
                aria-valuemin={0}
                aria-valuemax={included}
                aria-valuenow={settled - beyond}
                aria-valuetext={`${count(settled)} of ${count(included)} tokens`}
            >
                <div className="used" style={{ width: share(settled) }} />
                <div className="held" style={{ width: share(Math.min(held, Math.max(0, included - settled))) }} />
            </div>
            {(usage.status === 'past_due' || usage.status === 'overdue') && (
                <p className="meter-note unpaid" role="status">
                    {usage.status === 'overdue' ? 'An invoice is unpaid, so nothing can be written.' : `An invoice is unpaid. Everything goes on until ${day(usage.payBy!)}.`}
                    <button type="button" className="quiet" onClick={manage}>Pay it</button>
                </p>
            )}
            {failed && <p className="meter-note">This may be out of date. <button type="button" className="quiet" onClick={retry}>Refresh</button></p>}
        </section>
    );
}
