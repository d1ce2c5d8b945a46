use super::*;

fn areas(number: usize) -> Vec<HeldArea> {
    std::iter::repeat_with(HeldArea::default).take(number).collect()
}

fn held(client: &str) -> Held {
    Held {
        protocol: Protocol::Websocket,
        since: 1,
        request_since: 2,
        idle_since: 3,
        sent: u64::MAX,
        requests: 5,
        client: client.into(),
        server: "example.com".into(),
        method: "GET".into(),
        path: "/chat".into(),
        upstream: "10.0.0.1:80".into(),
    }
}

fn of(registration: u64, connections: Vec<Held>) -> Holders {
    Holders { registration, looked_at: 7, total: connections.len() as u32 + 3, connections }
}

#[test]
fn what_is_noted_is_read() {
    let memory = areas(2);
    let areas = HeldAreas(&memory);
    assert_eq!(areas.read(), []);
    let first = of(10, (0..9).map(|n| held(&format!("[::1]:{n}"))).collect());
    assert!(areas.note(&first, |_| true));
    let eight = Holders { connections: first.connections[..8].to_vec(), ..first };
    assert_eq!(areas.read(), [eight]);
    // Fewer than before, and another worker.
    let (first, second) = (of(10, vec![held("a")]), of(11, vec![]));
    assert!(areas.note(&second, |_| true) && areas.note(&first, |_| true));
    assert_eq!(areas.read(), [first, second]);
}

#[test]
fn an_area_is_given_to_another_when_its_worker_has_ended() {
    let memory = areas(1);
    let areas = HeldAreas(&memory);
    assert!(areas.note(&of(10, vec![held("a")]), |_| true));
    assert!(!areas.note(&of(11, vec![]), |other| other == 10));
    assert!(areas.note(&of(11, vec![held("b")]), |_| false));
    assert_eq!(areas.read(), [of(11, vec![held("b")])]);
    // It died in the middle, whoever comes next goes on.
    memory[0].version.store(5, Relaxed);
    assert_eq!(areas.read(), []);
    assert!(areas.note(&of(12, vec![]), |_| false));
    assert_eq!(areas.read(), [of(12, vec![])]);
    // One that has taken an area and noted nothing says nothing of another's.
    memory[0].owner.store(13, Relaxed);
    assert_eq!(areas.read()[0].registration, 12);
    assert!(!HeldAreas(&[]).note(&of(10, vec![]), |_| false));
}

#[test]
fn texts_share_their_room() {
    let mut long = held(&"c".repeat(300));
    for text in [&mut long.server, &mut long.method, &mut long.upstream] {
        *text = "x".repeat(300);
    }
    long.path = "/ä".repeat(300);
    let read = Held::from_words(&long.to_words());
    let lengths = read.texts().map(str::len);
    assert_eq!(lengths[..4], [48, 40, 16, 48]);
    // The path has what is left, to a character.
    assert!((54..=56).contains(&lengths[4]) && read.path.ends_with('…'), "{read:?}");
    // With short ones there is more for it.
    let read = Held::from_words(&Held { path: long.path, ..held("a") }.to_words());
    assert!(read.path.len() > 170, "{read:?}");
}

#[test]
fn any_words_are_read() {
    let mut state = 1u64;
    for _ in 0..20_000 {
        let words = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.rotate_left(29) ^ state
        });
        let held = Held::from_words(&words);
        assert!(held.texts().iter().all(|text| !text.chars().any(char::is_control)));
        let _ = Held::from_words(&held.to_words()).to_string();
    }
}

#[test]
fn a_line_says_what_there_is() {
    assert_eq!(
        held("1.2.3.4:5").to_string(),
        "websocket of 1.2.3.4:5, \"GET /chat\", server example.com, upstream 10.0.0.1:80, \
         18446744073709551615 bytes sent"
    );
    let silent = Held { client: "unix:".into(), ..Held::default() };
    assert_eq!(silent.to_string(), "unknown of unix:, 0 bytes sent");
}

#[test]
fn a_zone_has_room_for_some() {
    assert_eq!(HeldAreas::number(8 * 4096), 1);
    assert_eq!(HeldAreas::number(61 * 4096), 14);
    assert_eq!(HeldAreas::number(1 << 30), AREAS);
    assert_eq!(HeldAreas::bytes(4096), 0);
}
