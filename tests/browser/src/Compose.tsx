import { useCompletion } from '@ai-sdk/react';
import { type KeyboardEvent, useEffect, useMemo, useRef, useState } from 'react';
import * as api from './api';
import { sentence, tokens } from './format';
import { useCommandKey, useEscape, useQuote } from './hooks';
import { Notice } from './Notice';
import { type Choices, chosen, DEFAULTS, Options, TYPES, Types } from './Options';
import { Receipt } from './Receipt';
import type { Session } from './session';

const EXAMPLES = [
    ['rewrite', 'We are pleased to inform you that your parcel, which you ordered from us, has now been sent out today.'],
    ['product_description', 'Stainless steel kettle, 1.2 l, sings when the water boils, three colours, for people who forget.'],
    ['social_post', 'Our shop opens on Saturday at ten. Coffee is on us, the first fifty get a mug.'],
] as const;
const HINTS: Record<string, string> = {
    rewrite: 'Paste the text that should read better',
    product_description: 'A few notes on the product',
    social_post: 'What the post should say',
};

/** As in the style sheet. */
const NARROW = '(max-width: 900px)';

/** Whether the user pressed Stop: not, waiting for the end, or whether the bill was stopped with it. */
type Stopping = 'no' | 'asked' | 'stopped' | 'unmetered';

interface Props {
    session: Session;
    active: boolean;
    spent: () => void;
}

export function Compose({ session, active, spent }: Props) {
    const [choices, choose] = useState<Choices>(DEFAULTS);
    const [metadata, setMetadata] = useState<api.Metadata>();
    const [stopping, setStopping] = useState<Stopping>('no');
    const [runs, setRuns] = useState(0);
    const key = useRef('');
    const box = useRef<HTMLTextAreaElement>(null);
    const paper = useRef<HTMLElement>(null);
    const command = useCommandKey();

    const fetch = useMemo(() => api.authorized(session, setMetadata), [session]);
    const { completion, complete, setCompletion, stop, error, isLoading, input, setInput } = useCompletion({ api: api.GENERATE, fetch });

    const wish: api.Wish = { prompt: input, ...chosen(choices) };
    const quote = useQuote(session, wish, runs);
    const ready = input.trim() !== '' && !isLoading;

    useEffect(() => {
        if (active) box.current?.focus();
    }, [active]);
    // The meter moves when an answer begins (its tokens are held) and when it has ended.
    useEffect(spent, [spent, isLoading, completion !== '']);

    const submit = async () => {
        if (!ready) return;
        const { prompt, ...body } = wish;
        key.current = api.newKey();
        setMetadata(undefined);
        setStopping('no');
        // Where the answer is below the form, it is what one wants to see now.
        if (matchMedia(NARROW).matches) paper.current?.scrollIntoView();
        await complete(prompt, { body, headers: { 'idempotency-key': key.current } });
        setRuns((runs) => runs + 1);
    };
    const halt = async () => {
        if (!isLoading || stopping !== 'no') return;
        const stopped = key.current;
        setStopping('asked');
        // A later answer is not this one's to cut.
        const cut = () => stopped === key.current && stop();
        setStopping((await api.stopAnswer(session, stopped, cut)) ? 'stopped' : 'unmetered');
    };
    useEscape(isLoading && active, halt);
    const typed = (event: KeyboardEvent) => {
        if (event.key !== 'Enter' || !(event.metaKey || event.ctrlKey)) return;
        event.preventDefault();
        void submit();
    };
    const example = (type: string, text: string) => {
        choose({ ...choices, type });
        setInput(text);
        box.current?.focus();
    };
    const again = () => {
        setCompletion('');
        setMetadata(undefined);
        setInput('');
        box.current?.focus();
    };

    return (
        <div className="compose">
            <form
                className="card"
                onSubmit={(event) => {
                    event.preventDefault();
                    void submit();
                }}
            >
                <h2 className="hidden">What you have</h2>
                <Types choices={choices} choose={choose} />
                <label className="hidden" htmlFor="prompt">Your text</label>
                <textarea
                    id="prompt"
                    ref={box}
                    rows={8}
                    value={input}
                    placeholder={HINTS[choices.type]}
                    aria-describedby="price"
                    onChange={(event) => setInput(event.target.value)}
                    onKeyDown={typed}
                />
                <Price quote={quote} blank={input.trim() === ''} />
                <Options choices={choices} choose={choose} />
                <div className="actions">
                    {isLoading ? (
                        <button type="button" className="stop" onClick={() => void halt()} disabled={stopping !== 'no'}>
                            {stopping === 'no' ? <>Stop <kbd aria-hidden="true">Esc</kbd></> : 'Stopping…'}
                        </button>
                    ) : (
                        <button type="submit" className="primary" disabled={!ready} aria-keyshortcuts="Control+Enter Meta+Enter">
                            Write <kbd aria-hidden="true">{command} ↵</kbd>
                        </button>
                    )}
                </div>
            </form>

            <section className="card paper" ref={paper} aria-labelledby="result">
                <div className="paper-head">
                    <h2 id="result">{TYPES.find(([type]) => type === choices.type)?.[1]}</h2>
                    {isLoading && (
                        <button type="button" className="quiet narrow" onClick={() => void halt()} disabled={stopping !== 'no'}>
                            {stopping === 'no' ? 'Stop' : 'Stopping…'}
                        </button>
                    )}
                    {completion !== '' && !isLoading && (
                        <div className="tools">
                            <Copy text={completion} />
                            <button type="button" className="quiet" onClick={again}>Clear</button>
                        </div>
                    )}
                </div>
                <p className="hidden" role="status">{status(isLoading, completion, error, stopping, metadata)}</p>
                {completion === '' && !isLoading && !error && <Empty example={example} />}
                {completion === '' && isLoading && <Waiting />}
                <div className={`copy ${isLoading ? 'writing' : ''}`} aria-live="polite" aria-busy={isLoading} data-testid="copy">
                    {completion}
                </div>
                {error && <Notice error={error} partial={completion !== ''} retry={() => void submit()} />}
                {!isLoading && stopping !== 'no' && <Stopped stopping={stopping} written={completion !== ''} />}
                {!isLoading && metadata && <Receipt metadata={metadata} />}
            </section>
        </div>
    );
}

function status(loading: boolean, text: string, error: Error | undefined, stopping: Stopping, metadata?: api.Metadata): string {
    if (loading) return stopping === 'no' ? (text ? 'Writing.' : 'Waiting for the first words.') : 'Stopping.';
    // An error is its own announcement.
    if (error || !text) return '';
    const charged = metadata?.charged === undefined ? '' : ` ${tokens(metadata.charged)} charged.`;
    return (stopping === 'no' ? 'Done.' : 'Stopped.') + charged;
}

function Price({ quote, blank }: { quote: api.Quote | undefined; blank: boolean }) {
    let text = blank ? 'The price shows here as you type.' : '\u00a0';
    let refused = false;
    if (quote?.passes) {
        const most = `At most ${tokens(quote.tokens.most)}`;
        const cost = Number(quote.costUsd.most) > 0 ? `, up to $${quote.costUsd.most} on your invoice` : ', within your plan';
        text = most + cost + (quote.clamped ? '. The answer will be shortened to what is left.' : '.');
    } else if (quote) {
        refused = true;
        text = `Would be refused now. ${sentence(quote.refusal?.detail ?? '')}`;
    }
    return <p id="price" className={`price ${refused ? 'refused' : ''}`} data-testid="quote" data-known={quote !== undefined}>{text}</p>;
}

function Empty({ example }: { example: (type: string, text: string) => void }) {
    return (
        <div className="empty">
            <p>Your copy appears here, word by word. Start with one of these:</p>
            <ul>
                {EXAMPLES.map(([type, text]) => (
                    <li key={type}>
                        <button type="button" onClick={() => example(type, text)}>
                            <strong>{TYPES.find(([other]) => other === type)?.[1]}</strong>
                            <span>{text}</span>
                        </button>
                    </li>
                ))}
            </ul>
        </div>
    );
}

function Waiting() {
    return (
        <div className="waiting" aria-hidden="true">
            <div className="skeleton" />
            <div className="skeleton" />
            <div className="skeleton" />
        </div>
    );
}

function Stopped({ stopping, written }: { stopping: Stopping; written: boolean }) {
    return (
        <p className="stopped" data-testid="stopped" data-billing={stopping}>
            {stopping === 'unmetered'
                ? 'Stopped here, but the server could not be told: the answer may be charged to its end.'
                : written
                  ? 'You stopped this answer. Only the prompt and what was written are charged.'
                  : 'You stopped before anything was written.'}
        </p>
    );
}

function Copy({ text }: { text: string }) {
    const [copied, setCopied] = useState(false);
    useEffect(() => {
        if (!copied) return;
        const timer = setTimeout(() => setCopied(false), 2_000);
        return () => clearTimeout(timer);
    }, [copied]);
    const copy = () => navigator.clipboard.writeText(text).then(() => setCopied(true), () => setCopied(false));
    return <button type="button" className="quiet" onClick={() => void copy()}>{copied ? 'Copied' : 'Copy'}</button>;
}
