import { useEffect, useMemo, useRef, useState } from 'react';
import { type Quote, quote, type Wish } from './api';
import type { Session } from './session';

/** Milliseconds without a key press after which the price is asked for. */
const QUOTE_AFTER_MS = 400;

/** What the wish would take, asked for while it is typed, and again when `asked` changes. */
export function useQuote(session: Session, wish: Wish, asked: unknown): Quote | undefined {
    const [shown, setShown] = useState<{ body: string; quote: Quote | undefined }>();
    const body = JSON.stringify(wish);
    const blank = wish.prompt.trim() === '';
    useEffect(() => {
        if (blank) return;
        const abort = new AbortController();
        const timer = setTimeout(() => {
            quote(session, JSON.parse(body), abort.signal).then(
                (quote) => setShown({ body, quote }),
                // What was superseded or did not come is not shown; the button works without it.
                () => {},
            );
        }, QUOTE_AFTER_MS);
        return () => {
            clearTimeout(timer);
            abort.abort();
        };
    }, [session, body, blank, asked]);
    return blank ? undefined : shown?.quote;
}

/** Calls `act` on Escape while `on`. */
export function useEscape(on: boolean, act: () => void) {
    const latest = useRef(act);
    latest.current = act;
    useEffect(() => {
        if (!on) return;
        const listen = (event: KeyboardEvent) => event.key === 'Escape' && latest.current();
        document.addEventListener('keydown', listen);
        return () => document.removeEventListener('keydown', listen);
    }, [on]);
}

/** ⌘ on Apple's keyboards, Ctrl on the others. */
export const useCommandKey = () => useMemo(() => (/Mac|iPhone|iPad/.test(navigator.platform) ? '⌘' : 'Ctrl'), []);
