//! Deliveries to the whole handler, over the ledger in memory and a small Stripe. Stripe's state and what the deliveries claim are
//! two things here, as they are outside.

mod accounts;
mod corpus;
mod drafts;
mod life;
mod notices;
mod plans;
mod world;
