// A React that renders into a DOM of happy-dom, so that the hooks are the hooks. `fetch` and the streams stay Node's own.

import { Window } from 'happy-dom';
import { soon } from './api.mjs';

const window = new Window({ url: 'http://127.0.0.1/' });
for (const name of ['document', 'sessionStorage', 'HTMLElement', 'Node', 'Event', 'FormData', 'HTMLIFrameElement']) {
    globalThis[name] = window[name];
}
globalThis.window = window;
const { createElement, useEffect } = await import('react');
const { createRoot } = await import('react-dom/client');

/** A component that only has this hook; `now` is what it last returned. */
export function host(useHook) {
    const root = createRoot(document.body.appendChild(document.createElement('div')));
    const hosted = { now: undefined };
    let looking = new Set();
    const Host = () => {
        const value = useHook();
        useEffect(() => {
            hosted.now = value;
            for (const look of looking) look();
        });
        return null;
    };
    root.render(createElement(Host));
    /** Waits until what the hook returns is so. */
    hosted.until = (is, what) => {
        const seen = new Promise((resolve) => {
            const look = () => {
                if (hosted.now === undefined || !is(hosted.now)) return;
                looking.delete(look);
                resolve(hosted.now);
            };
            looking.add(look);
            look();
        });
        return soon(seen, what);
    };
    hosted.gone = () => root.unmount();
    return hosted;
}

/** Renders a component. */
export function render(Component) {
    const place = document.body.appendChild(document.createElement('div'));
    createRoot(place).render(createElement(Component));
    return place;
}

/** Looks at the DOM until there is something to see. */
export function until(look, what) {
    const seen = new Promise((resolve) => {
        const again = () => {
            const found = look();
            if (!found) return false;
            observer.disconnect();
            resolve(found);
            return true;
        };
        const observer = new window.MutationObserver(again);
        observer.observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
        again();
    });
    return soon(seen, what);
}
