// What the snippets of docs/FRONTEND.md see of Clerk's package, and of the bundler's `process`.

declare module '@clerk/nextjs' {
    export function useAuth(): { getToken(): Promise<string | null> };
}
declare const process: { env: Record<string, string | undefined> };
