// Who is signed in. The local cloud's test users stand where Clerk's would: `token()` is Clerk's `getToken()`, a token
// that lives for a minute and is fetched again when it is about to end.

/** Milliseconds before its end at which a token is not used any more: a call takes its time. */
const TOKEN_SPARE_MS = 15_000;

export interface Person {
    name: string;
    title: string;
    about: string;
}

interface SignedIn {
    token: string;
    expiresInS: number;
}

export async function people(): Promise<Person[]> {
    const answer = await fetch('/local/people');
    if (answer.status === 404) throw new Error('This cloud signs in with the real Clerk, which this page does not.');
    if (!answer.ok) throw new Error('The local cloud does not answer. Is it running?');
    return answer.json();
}

export class Session {
    readonly person: Person;
    #current: { token: string; until: number };
    #refreshing: Promise<string> | undefined;

    private constructor(person: Person, signedIn: SignedIn) {
        this.person = person;
        this.#current = Session.#dated(signedIn);
    }

    static async open(person: Person): Promise<Session> {
        return new Session(person, await Session.#signIn(person.name, true));
    }

    /** A token that is good for at least a few seconds. */
    async token(): Promise<string> {
        if (Date.now() < this.#current.until) return this.#current.token;
        // One refresh at a time, whoever asks.
        this.#refreshing ??= Session.#signIn(this.person.name)
            .then((signedIn) => {
                this.#current = Session.#dated(signedIn);
                return this.#current.token;
            })
            .finally(() => {
                this.#refreshing = undefined;
            });
        return this.#refreshing;
    }

    static #dated({ token, expiresInS }: SignedIn) {
        return { token, until: Date.now() + expiresInS * 1000 - TOKEN_SPARE_MS };
    }

    static async #signIn(user: string, anew = false): Promise<SignedIn> {
        const answer = await fetch('/local/sign-in', {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ user, anew }),
        });
        const body = await answer.json().catch(() => ({}));
        if (!answer.ok) throw new Error(body.error ?? 'The local cloud does not answer. Is it running?');
        return body;
    }
}
