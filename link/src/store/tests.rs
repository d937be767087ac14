//! What JetStream's answers mean, code by code.

use super::*;

fn of_append(code: u64, err_code: u64, description: &str) -> StoreError {
    let text =
        format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{description}"}}}}"#);
    let reply = answer::<Ack>(text.as_bytes()).unwrap();
    reply.map_err(StoreError::from).unwrap_err()
}

#[test]
fn an_answer_means_what_its_code_says() {
    assert!(matches!(of_append(400, 10071, "wrong last sequence: 7"), StoreError::Conflict));
    assert!(matches!(of_append(400, 10164, "wrong last sequence"), StoreError::Undetermined(_)));
    assert!(matches!(of_append(503, 10008, "temporarily unavailable"), StoreError::Unavailable(_)));
    assert!(matches!(of_append(503, 10077, "maximum bytes exceeded"), StoreError::Full(_)));
    assert!(matches!(of_append(503, 10077, "raft: failed"), StoreError::Undetermined(_)));
    assert!(matches!(of_append(500, 10047, "insufficient storage"), StoreError::Full(_)));
    assert!(matches!(of_append(400, 10054, "message size exceeds maximum"), StoreError::TooLarge { .. }));
    assert!(matches!(of_append(400, 10999, "something new"), StoreError::Unexpected(_)));
}

#[test]
fn a_leader_that_changes_has_stored_nothing_or_nobody_knows() {
    // A proposal that raft did not take has no code of JetStream's own.
    assert!(matches!(of_append(503, 0, "raft: not leader"), StoreError::Unavailable(_)));
    assert!(matches!(of_append(503, 10039, "not enabled for account"), StoreError::Unavailable(_)));
    assert!(matches!(of_append(404, 10059, "stream not found"), StoreError::Unusable(_)));
    assert!(matches!(of_append(503, 10023, "insufficient resources"), StoreError::Full(_)));
    for code in [10009, 10041, 10118] {
        assert!(matches!(of_append(500, code, "raft"), StoreError::Undetermined(_)), "{code}");
    }
}

#[test]
fn a_read_is_never_open_and_never_full() {
    let read =
        |code: u64, err_code: u64| of_read(ApiError { code, err_code, description: "raft".to_owned() });
    for (code, err_code) in [(500, 10009), (503, 10023), (503, 10008), (503, 10077)] {
        assert!(matches!(read(code, err_code), StoreError::Unavailable(_)), "{err_code}");
    }
}

#[test]
fn an_acknowledgement_has_a_sequence() {
    assert_eq!(answer::<Ack>(br#"{"stream":"ORDERS","seq":7}"#).unwrap().unwrap().seq, 7);
    assert!(answer::<Ack>(b"{}").is_err() && answer::<Ack>(b"nonsense").is_err());
}
