//! The real binaries behind the local cloud.

#[cfg(test)]
mod billing;
#[cfg(test)]
mod books;
#[cfg(test)]
mod budgets;
#[cfg(test)]
mod cap;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod days;
#[cfg(test)]
mod hot;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod kills;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod late;
#[cfg(test)]
mod money;
#[cfg(test)]
mod outage;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod projection;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod store;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod structure;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhooks;
