//! One suite for both stores, and the protocols under lost answers and crashes.

#[cfg(test)]
mod suite {
    pub(crate) mod between;
    pub(crate) mod books;
    pub(crate) mod budget;
    pub(crate) mod claims;
    pub(crate) mod contract;
    pub(crate) mod faults;
    pub(crate) mod largest;
    pub(crate) mod limits;
    pub(crate) mod model;
    pub(crate) mod sockets;
    pub(crate) mod stand_ins;
    pub(crate) mod storm;
    pub(crate) mod support;
    pub(crate) mod together;
    pub(crate) mod wire;
}
