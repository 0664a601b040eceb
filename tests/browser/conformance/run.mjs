// Runs the hooks' tests for every version of the AI SDK against the local cloud at INKMETER_URL, prints a table, and fails if
// one of them did.

import { spawn, spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { extract } from './extract.mjs';

const MAJORS = [4, 5, 6, 7];
/** Bounds a process that hangs. */
const LIMIT_MS = 150_000;

const here = (path) => new URL(path, import.meta.url);

async function version(name) {
    return JSON.parse(await readFile(here(`../node_modules/${name}/package.json`), 'utf8')).version;
}

async function runMajor(major) {
    const [ai, react] = major === 7 ? ['ai', '@ai-sdk/react'] : [`ai-v${major}`, `react-v${major}`];
    const child = spawn(process.execPath, ['--import', here('resolve.mjs').pathname, here('hooks.mjs').pathname], {
        env: { ...process.env, AI_SDK_MAJOR: String(major) },
        stdio: ['ignore', 'pipe', 'inherit'],
    });
    const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
    const results = [];
    for await (const line of createInterface({ input: child.stdout })) {
        try {
            results.push(JSON.parse(line));
        } catch {
            console.log(`v${major}: ${line}`);
        }
    }
    const code = await ended;
    clearTimeout(limit);
    if (code !== 0) results.push({ name: 'the process', ms: 0, error: `it ended with ${code}` });
    return { major, ai: await version(ai), react: await version(react), results };
}

const snippets = await extract();
const tsc = [here('../node_modules/typescript/bin/tsc').pathname, '--noEmit', '-p', here('tsconfig.json').pathname];
const { status } = spawnSync(process.execPath, tsc, { stdio: 'inherit' });
if (status !== 0) throw new Error('the types of docs/FRONTEND.md do not hold');
const runs = await Promise.all(MAJORS.map(runMajor));
console.log(`Node.js ${process.version}, React ${await version('react')}; docs/FRONTEND.md: ${snippets.join(', ')}`);
for (const { major, ai, react, results } of runs) {
    console.log(`\nAI SDK ${major}: ai ${ai}, @ai-sdk/react ${react}`);
    for (const { name, ms, error } of results) console.log(`  ${error ? 'FAILED' : 'ok    '} ${String(ms).padStart(6)} ms  ${name}`);
}
const failed = runs.flatMap(({ major, results }) => results.filter(({ error }) => error).map((result) => ({ major, ...result })));
for (const { major, name, error } of failed) console.log(`\nAI SDK ${major}: ${name}\n${error}`);
const count = runs.reduce((sum, { results }) => sum + results.length, 0);
console.log(`\n${count - failed.length} of ${count} passed`);
process.exit(failed.length > 0 || count === 0 ? 1 : 0);
