const NUMBER = new Intl.NumberFormat('en');
const DAY = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'long' });

export const count = (tokens: number): string => NUMBER.format(tokens);
export const tokens = (n: number): string => `${count(n)} ${n === 1 ? 'token' : 'tokens'}`;
export const day = (instant: string): string => DAY.format(new Date(instant));

const MOMENT = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
export const moment = (instant: string): string => MOMENT.format(new Date(instant));

/** An instant in a sentence of the API, which a person reads as a day. */
const INSTANT = /\d{4}-\d\d-\d\dT[\d:.]+Z/g;
export const sentence = (detail: string): string => detail.replace(INSTANT, day);

/** Seconds, as a person says them. */
export function duration(s: number): string {
    if (s < 60) return `${s} s`;
    if (s < 3_600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    return `${Math.ceil(s / 3_600)} h`;
}
