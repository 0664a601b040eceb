import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport, type UIMessage } from 'ai';
import { type KeyboardEvent, useEffect, useMemo, useRef, useState } from 'react';
import * as api from './api';
import { useEscape } from './hooks';
import { Notice } from './Notice';
import { type Choices, chosen, DEFAULTS, Types } from './Options';
import { Receipt } from './Receipt';
import type { Session } from './session';

type Message = UIMessage<api.Metadata>;

/** Where a conversation and the key of its last request outlive a reload. */
const MESSAGES = 'inkmeter.chat';
const KEY = 'inkmeter.chat.key';

interface Props {
    session: Session;
    active: boolean;
    spent: () => void;
}

export function Chat({ session, active, spent }: Props) {
    const [choices, choose] = useState<Choices>(DEFAULTS);
    const [input, setInput] = useState('');
    const [stopping, setStopping] = useState(false);
    const box = useRef<HTMLTextAreaElement>(null);
    const end = useRef<HTMLDivElement>(null);
    const before = useMemo(stored, []);

    const transport = useMemo(() => {
        return new DefaultChatTransport<Message>({
            api: api.GENERATE,
            fetch: api.authorized(session),
            prepareSendMessagesRequest({ messages, body }) {
                const key = api.newKey();
                sessionStorage.setItem(KEY, key);
                // What came before in its words alone: metadata is not the server's to read.
                const bare = messages.map(({ id, role, parts }) => ({ id, role, parts }));
                return { headers: { 'idempotency-key': key }, body: { messages: bare, ...body } };
            },
            prepareReconnectToStreamRequest() {
                const key = sessionStorage.getItem(KEY) ?? '';
                return { api: `${api.GENERATE}/${encodeURIComponent(key)}/stream` };
            },
        });
    }, [session]);
    const chat = useChat<Message>({ transport, messages: before });
    const { messages, sendMessage, regenerate, resumeStream, setMessages, stop, status, error, clearError } = chat;
    const busy = status === 'submitted' || status === 'streaming';
    const unanswered = !busy && !error && messages.at(-1)?.role === 'user';

    useEffect(() => {
        if (active) box.current?.focus();
    }, [active]);
    useEffect(spent, [spent, status]);
    useEffect(() => {
        // Of an answer that is not over, the page that is left keeps the question: the API has the answer.
        const kept = busy ? messages.slice(0, messages.findLastIndex(({ role }) => role === 'user') + 1) : messages;
        sessionStorage.setItem(MESSAGES, JSON.stringify(kept));
        if (!busy) setStopping(false);
    }, [busy, messages]);
    useEffect(() => {
        end.current?.scrollIntoView({ block: 'nearest' });
    }, [messages, busy]);
    // The page was left while an answer was on its way: it is there by now, or will be asked for by hand.
    useEffect(() => {
        if (before.at(-1)?.role === 'user') void resumeStream();
    }, [before, resumeStream]);

    const send = () => {
        const text = input.trim();
        if (!text || busy) return;
        setInput('');
        void sendMessage({ text }, { body: chosen(choices) });
    };
    const again = () => {
        clearError();
        void regenerate({ body: chosen(choices) });
    };
    const halt = () => {
        const stopped = sessionStorage.getItem(KEY) ?? '';
        setStopping(true);
        void api.stopAnswer(session, stopped, () => void (stopped === sessionStorage.getItem(KEY) && stop()));
    };
    useEscape(busy && active && !stopping, halt);
    const typed = (event: KeyboardEvent) => {
        // While a text is composed (Japanese, say), Enter chooses a word.
        if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
        event.preventDefault();
        send();
    };

    return (
        <div className="chat card">
            <div className="chat-head">
                <Types choices={choices} choose={choose} />
                {messages.length > 0 && (
                    <button
                        type="button"
                        className="quiet"
                        disabled={busy}
                        onClick={() => {
                            clearError();
                            setMessages([]);
                            box.current?.focus();
                        }}
                    >
                        New chat
                    </button>
                )}
            </div>
            <div className="talk" role="log" aria-label="Conversation" aria-busy={busy}>
                {messages.length === 0 && (
                    <div className="empty">
                        <p>Say what you want to write, then say what to change. The last twenty messages are read.</p>
                    </div>
                )}
                {messages.map((message) => <Said key={message.id} message={message} />)}
                {status === 'submitted' && <div className="said assistant"><div className="skeleton line" aria-hidden="true" /><span className="hidden">Waiting for the first words.</span></div>}
                {unanswered && (
                    <div className="notice">
                        <p>This message has no answer yet.</p>
                        <p className="notice-end">
                            <button type="button" onClick={() => void resumeStream()}>Look again</button>
                            <button type="button" className="quiet" onClick={again}>Ask again</button>
                        </p>
                    </div>
                )}
                {error && <Notice error={error} partial={text(messages.at(-1)) !== '' && messages.at(-1)?.role === 'assistant'} retry={again} />}
                <div ref={end} />
            </div>
            <form
                className="ask"
                onSubmit={(event) => {
                    event.preventDefault();
                    send();
                }}
            >
                <label className="hidden" htmlFor="message">Your message</label>
                <textarea
                    id="message"
                    ref={box}
                    rows={2}
                    value={input}
                    placeholder="Make it shorter, and less formal"
                    onChange={(event) => setInput(event.target.value)}
                    onKeyDown={typed}
                />
                {busy ? (
                    <button type="button" className="stop" onClick={halt} disabled={stopping}>
                        {stopping ? 'Stopping…' : <>Stop <kbd aria-hidden="true">Esc</kbd></>}
                    </button>
                ) : (
                    <button type="submit" className="primary" disabled={input.trim() === ''}>Send <kbd aria-hidden="true">↵</kbd></button>
                )}
            </form>
        </div>
    );
}

function Said({ message }: { message: Message }) {
    return (
        <article className={`said ${message.role}`}>
            <h3 className="hidden">{message.role === 'user' ? 'You' : 'Inkmeter'}</h3>
            <div className="copy">{text(message)}</div>
            {message.metadata?.usage && <Receipt metadata={message.metadata} />}
        </article>
    );
}

const text = (message?: Message) => message?.parts.map((part) => (part.type === 'text' ? part.text : '')).join('') ?? '';

function stored(): Message[] {
    try {
        return JSON.parse(sessionStorage.getItem(MESSAGES) ?? '[]');
    } catch {
        return [];
    }
}
