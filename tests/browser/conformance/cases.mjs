// Collects tests and runs them one after the other; each result is a line of JSON that run.mjs reads.

export function cases() {
    const all = [];
    return {
        test: (name, body) => all.push({ name, body }),
        async run() {
            for (const { name, body } of all) {
                const begun = performance.now();
                let error;
                try {
                    await body();
                } catch (caught) {
                    error = String(caught?.stack ?? caught);
                }
                console.log(JSON.stringify({ name, ms: Math.round(performance.now() - begun), error }));
            }
            // Mounted hooks and kept connections would hold the process.
            process.exit(0);
        },
    };
}
