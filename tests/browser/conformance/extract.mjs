// Takes the fenced blocks out of docs/FRONTEND.md, each a file that its first line names, and makes them modules that Node.js
// runs. A block without a name fails: whatever the page prints is run.

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { transformWithOxc } from 'vite';

const DOCUMENT = new URL('../../../docs/FRONTEND.md', import.meta.url);
export const SNIPPETS = new URL('../.snippets/', import.meta.url);
/** Every block has its test in hooks.mjs. */
const TESTED = ['inkmeter.ts', 'useWriter.ts', 'Writer.tsx', 'useConversation.ts', 'useWriter4.ts'];

export async function extract() {
    const document = await readFile(DOCUMENT, 'utf8');
    const blocks = [...document.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, , text]) => text);
    await rm(SNIPPETS, { recursive: true, force: true });
    await mkdir(SNIPPETS, { recursive: true });
    const found = [];
    for (const text of blocks) {
        const name = /^\/\/ ([\w.]+\.tsx?)\n/.exec(text)?.[1];
        if (!name) throw new Error(`docs/FRONTEND.md: a block does not begin with its file's name: ${text.slice(0, 60)}`);
        const { code } = await transformWithOxc(text, name, { lang: 'tsx', jsx: { runtime: 'automatic' } });
        await writeFile(new URL(name, SNIPPETS), text);
        await writeFile(new URL(name.replace(/\.tsx?$/, '.mjs'), SNIPPETS), code);
        found.push(name);
    }
    if (found.join() !== TESTED.join()) throw new Error(`docs/FRONTEND.md has ${found}, and the tests know ${TESTED}`);
    return found;
}
