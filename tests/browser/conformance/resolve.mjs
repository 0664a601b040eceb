// Lets one process see one version of the AI SDK under its own names, as an app does, and a stand-in for Clerk's package.

import { registerHooks } from 'node:module';

const major = process.env.AI_SDK_MAJOR;
const aliases = {
    '@clerk/nextjs': new URL('clerk.mjs', import.meta.url).href,
    // The newest has its own names.
    ...(major === '7' ? {} : { ai: `ai-v${major}`, '@ai-sdk/react': `react-v${major}` }),
};

registerHooks({
    resolve(specifier, context, next) {
        const ours = !context.parentURL?.includes('/node_modules/');
        if (ours && Object.hasOwn(aliases, specifier)) return next(aliases[specifier], context);
        // The document's modules name each other as a bundler lets them.
        if (ours && /^\.\/\w+$/.test(specifier)) return next(`${specifier}.mjs`, context);
        return next(specifier, context);
    },
});
