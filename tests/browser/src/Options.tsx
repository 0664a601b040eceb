import { useId } from 'react';

export interface Choices {
    type: string;
    tone: string;
    length: string;
    language: string;
    audience: string;
    platform: string;
    variants: number;
}

export const DEFAULTS: Choices = {
    type: 'rewrite',
    tone: '',
    length: '',
    language: '',
    audience: '',
    platform: '',
    variants: 1,
};

export const TYPES = [
    ['rewrite', 'Rewrite'],
    ['product_description', 'Product'],
    ['social_post', 'Social post'],
] as const;

const AUDIENCE_MAX = 120;
const TONES = ['neutral', 'friendly', 'professional', 'playful', 'bold', 'luxurious'];
const LENGTHS = ['short', 'medium', 'long'];
const LANGUAGES = [
    ['en', 'English'],
    ['de', 'German'],
    ['fr', 'French'],
    ['es', 'Spanish'],
    ['it', 'Italian'],
    ['nl', 'Dutch'],
    ['pt-BR', 'Portuguese (Brazil)'],
    ['ja', 'Japanese'],
] as const;
const PLATFORMS = [
    ['x', 'X (280)'],
    ['bluesky', 'Bluesky (300)'],
    ['threads', 'Threads (500)'],
    ['mastodon', 'Mastodon (500)'],
    ['instagram', 'Instagram (2,200)'],
    ['linkedin', 'LinkedIn (3,000)'],
    ['facebook', 'Facebook'],
] as const;

/** What of the choices goes into a request: only what was chosen. */
export function chosen({ type, platform, audience, variants, ...others }: Choices): { type: string } & Record<string, unknown> {
    const options: Record<string, unknown> = { ...others, audience: audience.trim() };
    if (type === 'social_post') options.platform = platform;
    if (variants > 1) options.variants = variants;
    return { type, ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== '')) };
}

interface Props {
    choices: Choices;
    choose: (choices: Choices) => void;
}

export function Types({ choices, choose }: Props) {
    const name = useId();
    return (
        <fieldset className="types">
            <legend className="hidden">Type of text</legend>
            {TYPES.map(([type, title]) => (
                <label key={type}>
                    <input
                        type="radio"
                        name={name}
                        value={type}
                        checked={choices.type === type}
                        onChange={() => choose({ ...choices, type })}
                    />
                    <span>{title}</span>
                </label>
            ))}
        </fieldset>
    );
}

export function Options({ choices, choose }: Props) {
    const set = (change: Partial<Choices>) => choose({ ...choices, ...change });
    return (
        <div className="options">
            <Choice label="Tone" value={choices.tone} empty="As it fits" options={TONES.map(named)} set={(tone) => set({ tone })} />
            <Choice label="Length" value={choices.length} empty="As it fits" options={LENGTHS.map(named)} set={(length) => set({ length })} />
            <Choice label="Language" value={choices.language} empty="As your text" options={LANGUAGES} set={(language) => set({ language })} />
            {choices.type === 'social_post' && (
                <Choice label="Platform" value={choices.platform} empty="Any (280)" options={PLATFORMS} set={(platform) => set({ platform })} />
            )}
            <Choice
                label="Versions"
                value={String(choices.variants)}
                options={[1, 2, 3, 4, 5].map((n) => [String(n), String(n)])}
                set={(variants) => set({ variants: Number(variants) })}
            />
            <label className="field wide">
                <span>Audience</span>
                <input
                    value={choices.audience}
                    maxLength={AUDIENCE_MAX}
                    placeholder="People who forget the kettle"
                    onChange={(event) => set({ audience: event.target.value })}
                />
            </label>
        </div>
    );
}

interface ChoiceProps {
    label: string;
    value: string;
    empty?: string;
    options: readonly (readonly [string, string])[];
    set: (value: string) => void;
}

function Choice({ label, value, empty, options, set }: ChoiceProps) {
    return (
        <label className="field">
            <span>{label}</span>
            <select value={value} onChange={(event) => set(event.target.value)}>
                {empty !== undefined && <option value="">{empty}</option>}
                {options.map(([value, title]) => (
                    <option key={value} value={value}>{title}</option>
                ))}
            </select>
        </label>
    );
}

const named = (name: string) => [name, name.slice(0, 1).toUpperCase() + name.slice(1)] as const;
