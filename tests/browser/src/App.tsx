import { type KeyboardEvent, useCallback, useEffect, useRef, useState } from 'react';
import { Account, useReturn } from './Account';
import * as api from './api';
import { Chat } from './Chat';
import { Compose } from './Compose';
import { Meter } from './Meter';
import { type Person, Session } from './session';
import { SignIn } from './SignIn';

const TABS = ['Compose', 'Chat', 'Account'] as const;
type Tab = (typeof TABS)[number];
/** Where the name of who is signed in outlives a reload. */
const WHO = 'inkmeter.person';

export function App() {
    const [session, setSession] = useState<Session>();
    const signedIn = (person: Person, session: Session) => {
        sessionStorage.setItem(WHO, person.name);
        setSession(session);
    };
    const signOut = () => {
        sessionStorage.clear();
        setSession(undefined);
    };
    if (!session) return <SignIn remembered={sessionStorage.getItem(WHO)} signedIn={signedIn} />;
    // Another person is another page: nothing of the one before is left.
    return <Workspace key={session.person.name} session={session} signOut={signOut} />;
}

function Workspace({ session, signOut }: { session: Session; signOut: () => void }) {
    const [tab, setTab] = useState<Tab>('Compose');
    const [usage, setUsage] = useState<api.Usage>();
    const [failed, setFailed] = useState(false);
    const latest = useRef(0);
    const refresh = useCallback(() => {
        const turn = ++latest.current;
        const show = (usage?: api.Usage) => {
            // An older answer may come after a newer one.
            if (turn !== latest.current) return;
            if (usage) setUsage(usage);
            setFailed(!usage);
        };
        api.usage(session).then(show, () => show());
    }, [session]);
    useEffect(refresh, [refresh]);
    const returned = useReturn(session, usage, refresh, () => setTab('Account'));

    return (
        <div className="shell">
            <header className="bar">
                <a className="brand" href="/">
                    <img src="/icon.svg" alt="" width="28" height="28" />
                    <span>Inkmeter</span>
                </a>
                <Tabs tab={tab} setTab={setTab} />
                <div className="who">
                    <span className="avatar" aria-hidden="true">{session.person.title.slice(0, 1)}</span>
                    <span className="who-name">{session.person.title}</span>
                    <button type="button" className="quiet" onClick={signOut}>Sign out</button>
                </div>
            </header>
            <Meter usage={usage} failed={failed} retry={refresh} manage={() => setTab('Account')} />
            <main>
                <section id="panel-Compose" role="tabpanel" aria-labelledby="tab-Compose" hidden={tab !== 'Compose'}>
                    <Compose session={session} active={tab === 'Compose'} spent={refresh} />
                </section>
                <section id="panel-Chat" role="tabpanel" aria-labelledby="tab-Chat" hidden={tab !== 'Chat'}>
                    <Chat session={session} active={tab === 'Chat'} spent={refresh} />
                </section>
                <section id="panel-Account" role="tabpanel" aria-labelledby="tab-Account" hidden={tab !== 'Account'}>
                    {tab === 'Account' && <Account session={session} usage={usage} returned={returned} changed={setUsage} />}
                </section>
            </main>
        </div>
    );
}

function Tabs({ tab, setTab }: { tab: Tab; setTab: (tab: Tab) => void }) {
    const move = (event: KeyboardEvent) => {
        if (event.key !== 'ArrowRight' && event.key !== 'ArrowLeft') return;
        const step = event.key === 'ArrowRight' ? 1 : TABS.length - 1;
        const next = TABS[(TABS.indexOf(tab) + step) % TABS.length]!;
        setTab(next);
        document.getElementById(`tab-${next}`)?.focus();
    };
    return (
        <div className="tabs" role="tablist" aria-label="What to do" onKeyDown={move}>
            {TABS.map((name) => (
                <button
                    key={name}
                    id={`tab-${name}`}
                    type="button"
                    role="tab"
                    aria-selected={tab === name}
                    aria-controls={`panel-${name}`}
                    tabIndex={tab === name ? 0 : -1}
                    onClick={() => setTab(name)}
                >
                    {name}
                </button>
            ))}
        </div>
    );
}
