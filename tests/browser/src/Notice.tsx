import { useEffect, useState } from 'react';
import { problemOf } from './api';
import { duration, sentence } from './format';

/** Beyond this a countdown tells nobody anything; seconds. */
const COUNTDOWN_MAX_S = 3_600;

interface Props {
    error: Error;
    /** Whether some of the answer is there. */
    partial: boolean;
    retry: () => void;
}

/** What an error says: a refusal of the API, a stream that broke off, or no answer at all. */
export function Notice({ error, partial, retry }: Props) {
    const problem = problemOf(error);
    const retryable = !problem || problem.retryAfter !== undefined || problem.status >= 500;
    const left = useCountdown(error, problem?.retryAfter ?? 0);
    const soon = left <= COUNTDOWN_MAX_S;
    const kind = problem?.status === 402 ? 'pay' : problem?.status === 429 ? 'wait' : 'bad';
    return (
        <div className={`notice ${kind}`} role="alert" data-code={problem?.code ?? 'none'}>
            <h3>{problem?.title ?? (partial ? 'The answer broke off' : 'No answer')}</h3>
            <p>{problem ? sentence(problem.detail) : said(error, partial)}</p>
            {retryable && soon && (
                <p className="notice-end">
                    <button type="button" disabled={left > 0} onClick={retry}>
                        {left > 0 ? `Try again in ${duration(left)}` : 'Try again'}
                    </button>
                    {left > 0 && problem?.upperBound && <span className="aside">at the latest</span>}
                </p>
            )}
        </div>
    );
}

function said(error: Error, partial: boolean): string {
    if (partial) return `${error.message} What is written above is kept.`;
    if (error instanceof TypeError) return 'The server cannot be reached. Check your connection, then try again.';
    return error.message || 'Something went wrong. Please try again.';
}

/** Whole seconds until `retryAfter` after this error came. */
function useCountdown(error: Error, retryAfter: number): number {
    const [left, setLeft] = useState(retryAfter);
    useEffect(() => {
        const until = Date.now() + retryAfter * 1_000;
        setLeft(retryAfter);
        if (retryAfter === 0 || retryAfter > COUNTDOWN_MAX_S) return;
        const timer = setInterval(() => {
            const left = Math.max(0, Math.ceil((until - Date.now()) / 1_000));
            setLeft(left);
            if (left === 0) clearInterval(timer);
        }, 250);
        return () => clearInterval(timer);
    }, [error, retryAfter]);
    return left;
}
