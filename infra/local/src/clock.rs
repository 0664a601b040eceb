//! Owns the local cloud's only reading of the wall clock and its only source of random ids.
//!
//! Decides nothing by them: deadlines are kept by the monotonic clock, wall time is only told to functions.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time in milliseconds since 1970-01-01T00:00:00Z; 0 on a machine whose clock is before that.
#[expect(clippy::disallowed_methods, reason = "the cloud is where a function's idea of now comes from")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A random id in the form of a version 4 UUID, as Lambda and API Gateway name their requests.
pub fn request_id() -> String {
    let bits = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let mut id = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::request_id;

    #[test]
    fn a_request_id_is_a_random_uuid() {
        let id = request_id();
        let groups: Vec<&str> = id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(groups[2].starts_with('4') && groups[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        assert_ne!(id, request_id());
    }
}
