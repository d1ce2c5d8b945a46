//! Requests of any kind: nothing panics, what is taken makes sense, and what is refused says why.
//! FUZZ_SEED and FUZZ_SECONDS choose another or a longer run.

use std::env;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use status::cursor::Cursor;
use status::health::Probe;
use status::request::{accepts, after, Page};
use status::wait::Wait;

/// Bytes of any kind, and such that are nearly right.
fn arguments() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["after", "until", "timeout", "x", ""]);
    let value = prop_oneof![
        "[0-9]{0,25}",
        "[0-9]{1,3}\\.[0-9]{0,3}",
        "[0-9]{0,4}(ms|s|m|h|d|)[0-9]{0,2}(ms|s)?",
        "[0-9a-f]{14,17}:[0-9]{0,3}",
        "(ready|done|%[0-9a-f]{0,2}|\\+|&|=|.)*",
    ];
    let pair = (name, value).prop_map(|(name, value)| format!("{name}={value}"));
    let pairs = prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&").into_bytes());
    prop_oneof![pairs, prop::collection::vec(any::<u8>(), 0..100)]
}

/// About as many cases as each test tries in a second.
const PER_SECOND: u64 = 40_000;

fn config() -> ProptestConfig {
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let cases = number("FUZZ_SECONDS").map_or(20_000, |s| s.saturating_mul(PER_SECOND));
    ProptestConfig {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(number("FUZZ_SEED").unwrap_or(1)),
        failure_persistence: None,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_wait_is_refused_or_can_be_asked_again(arguments in arguments()) {
        match Wait::parse(&arguments) {
            Ok(wait) => {
                prop_assert!(wait.timeout <= Wait::LONGEST);
                prop_assert_eq!(Wait::parse(wait.arguments().as_bytes()), Ok(wait));
            }
            Err(why) => prop_assert!(!why.to_string().is_empty()),
        }
    }

    #[test]
    fn a_stream_begins_somewhere_or_is_refused(
        arguments in arguments(),
        id in prop::option::of(prop::collection::vec(any::<u8>(), 0..25)),
    ) {
        match after(&arguments, id.as_deref()) {
            Ok(cursor) => prop_assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor)),
            Err(why) => prop_assert!(!why.to_string().is_empty()),
        }
    }

    #[test]
    fn a_path_names_a_page_of_its_location(
        path in prop_oneof![
            "(/|workers|metrics|events|wait|live|ready|\\.|%2f|x){0,6}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..60),
        ],
        location in prop::sample::select(vec!["/", "/workers", "/workers/", "", "^/w"]),
    ) {
        // Only what follows the location counts, so below it there is one path for each page.
        if let (Some(page), Some(rest)) = (
            Page::of(&path, location.as_bytes()),
            path.strip_prefix(location.as_bytes()),
        ) {
            let name: &[u8] = match page {
                Page::Status => b"",
                Page::Metrics => b"metrics",
                Page::Events => b"events",
                Page::Wait => b"wait",
                Page::Probe(Probe::Live) => b"live",
                Page::Probe(Probe::Ready) => b"ready",
            };
            prop_assert_eq!(rest.strip_prefix(b"/").unwrap_or(rest), name);
        }
    }

    #[test]
    fn what_is_accepted_is_named(
        accept in prop_oneof![
            "(text/html|application/json|\\*/\\*|;|q=|0|1|\\.|5|,| |-|e9){0,12}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..60),
        ],
    ) {
        if accepts(&accept, "text/html", &["application/json"]) {
            let text = String::from_utf8_lossy(&accept).to_ascii_lowercase();
            prop_assert!(text.contains("text/html"));
        }
    }
}
