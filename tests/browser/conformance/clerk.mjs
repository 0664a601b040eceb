// What the snippets use of Clerk's package: `getToken()`, here a test user's, fetched anew for every call.

import { token } from './api.mjs';

let user = 'alice';

export const signIn = (name) => {
    user = name;
};
const getToken = () => token(user);
export const useAuth = () => ({ getToken });
