import { useCallback, useEffect, useState } from 'react';
import { type Person, people, Session } from './session';

interface Props {
    remembered: string | null;
    signedIn: (person: Person, session: Session) => void;
}

export function SignIn({ remembered, signedIn }: Props) {
    const [offered, setOffered] = useState<Person[]>();
    const [entering, setEntering] = useState<string>();
    const [error, setError] = useState<string>();

    const enter = useCallback(async (person: Person) => {
        setEntering(person.name);
        setError(undefined);
        try {
            signedIn(person, await Session.open(person));
        } catch (error) {
            setError(message(error));
            setEntering(undefined);
        }
        // What comes of it is this component's end.
        // eslint-disable-next-line
    }, []);

    const load = useCallback(async () => {
        setError(undefined);
        try {
            const found = await people();
            const again = found.find(({ name }) => name === remembered);
            if (again) await enter(again);
            setOffered(found);
        } catch (error) {
            setError(message(error));
        }
    }, [enter, remembered]);
    useEffect(() => void load(), [load]);

    return (
        <main className="welcome">
            <img src="/icon.svg" alt="" width="48" height="48" />
            <h1>Copy that reads well.<br />A meter that tells you what it costs.</h1>
            <p className="lead">Inkmeter writes rewrites, product descriptions and posts, and counts every token once.</p>
            <h2 id="as">Sign in as a test user</h2>
            {error && (
                <div className="notice bad" role="alert">
                    <p>{error}</p>
                    <button type="button" onClick={() => void load()}>Try again</button>
                </div>
            )}
            {!offered && !error && <div className="people" aria-busy="true">{[1, 2, 3, 4].map((n) => <div key={n} className="person skeleton" />)}</div>}
            {offered && (
                <ul className="people" aria-labelledby="as">
                    {offered.map((person) => (
                        <li key={person.name}>
                            <button
                                type="button"
                                className="person"
                                disabled={entering !== undefined}
                                onClick={() => void enter(person)}
                            >
                                <span className="avatar" aria-hidden="true">{person.title.slice(0, 1)}</span>
                                <span>
                                    <strong>{person.title}</strong>
                                    <small>{entering === person.name ? 'Setting the account up…' : person.about}</small>
                                </span>
                            </button>
                        </li>
                    ))}
                </ul>
            )}
        </main>
    );
}

const message = (error: unknown) => (error instanceof Error ? error.message : 'Something went wrong.');
