use serde_json::Value;

use super::*;
use crate::fixture;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn the_status_of_a_node_between_two_reloads() {
    let (snapshot, facts) = fixture::node();
    let recent = Recent { number: 1, since: 1_000_000 };
    let status = parsed(&status(&snapshot, &facts, recent));
    assert_eq!(status["losses"]["total"], 1);
    assert_eq!(status["losses"]["recent"], 1);
    assert_eq!(status["losses"]["since"], 1_000.0);
    assert_eq!(status["node"]["history"], "000000000000004d");
    assert_eq!(status["node"]["generation"], 2);
    assert_eq!(status["node"]["reload_token"], "2.1");
    assert_eq!(status["node"]["reloads"]["last"], "failed");
    assert_eq!(status["node"]["reloads"]["duration"], 0.5);
    assert_eq!(status["generations"][0]["state"], "ready");
    assert_eq!(status["generations"][0]["ready_after"], 0.25);
    assert_eq!(status["generations"][1]["state"], "retired");
    assert_eq!(status["generations"][1]["age"], "previous");
    assert_eq!(status["generations"][1]["workers"]["draining"], 1);
    assert_eq!(status["workers"][0]["id"], "2-20");
    assert_eq!(status["workers"][0]["connections"]["idle"], 7);
    assert_eq!(status["workers"][0]["respawns"], 1);
    assert_eq!(status["workers"][1]["connections"], Value::Null);
    assert_eq!(status["workers"][1]["state"], "draining");
    assert_eq!(status["workers"][0]["held_by"], Value::Null);
    let held_by = &status["workers"][1]["held_by"];
    assert_eq!((&held_by["looked_at"], &held_by["total"]), (&1_002.9.into(), &3.into()));
    let held = &held_by["connections"][0];
    assert_eq!((&held["protocol"], &held["path"]), (&"http/1".into(), &"/slow".into()));
    assert_eq!((&held["age"], &held["request_age"]), (&2.5.into(), &2.0.into()));
    assert_eq!((&held["idle_since"], &held["upstream"]), (&Value::Null, &Value::Null));
    assert_eq!(status["callbacks"]["worker_start"]["runs"], 1);
    assert_eq!(status["lock"]["callback"], Value::Null);
    assert_eq!(status["zone"]["workers"]["used"], 2);
    assert_eq!(status["zone"]["uncounted"], 3);
    assert_eq!(status["zone"]["former_workers"], 2);
    assert_eq!(status["events"].as_array().map(Vec::len), Some(snapshot.events.len()));
}

#[test]
fn an_event_reads_as_in_the_event_log() {
    let (snapshot, _) = fixture::node();
    let (last, _) = snapshot.events.last().expect("there are some");
    let line = parsed(&event(last, Some(1500), None));
    assert_eq!(line["event"], "reload_failed");
    assert_eq!(line["took"], 0.0015);
    assert_eq!(line["n_next"], Value::Null);
    assert_eq!((&line["n_left"], &line["stopping"]), (&1.into(), &false.into()));
    assert_eq!(line["respawn_of"], Value::Null);
    assert_eq!(line["history"], "000000000000004d");
    assert_eq!(parsed(&event(last, None, None))["took"], Value::Null);
}

#[test]
fn errors_are_escaped() {
    assert_eq!(error("a \"b\"\n"), r#"{"error":"a \"b\"\n"}"#);
}

#[test]
fn what_is_missed_is_told() {
    let gap = Missed { after: Cursor { history: None, seq: 3 }, history: 0xab, next: 9 };
    let line = r#"{"event":"gap","history":"00000000000000ab","after":3,"next":9}"#;
    assert_eq!(missed(&gap), line);
    assert_eq!(gap.message(), format!("event: gap\nid: 00000000000000ab:8\ndata: {line}\n\n"));
    let restart = Missed { after: Cursor { history: Some(1), seq: 3 }, history: 0xab, next: 1 };
    assert_eq!(
        missed(&restart),
        r#"{"event":"restart","history":"00000000000000ab","after":"0000000000000001:3","next":1}"#
    );
}
