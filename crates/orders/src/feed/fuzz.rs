//! Properties that hold for any text that a caller sends as a token. Run by the fuzzers in fuzz/, and on their corpus
//! in every test run.

use super::token::{Foreign, Tokens};

/// A token that is accepted is exactly the one that was made, and is accepted nowhere else.
///
/// # Panics
///
/// If a property does not hold.
pub fn token(data: &[u8]) {
    let (ours, theirs) = (Tokens::new("2026-01-01T00:00:00Z"), Tokens::new("2026-01-01T00:00:01Z"));
    // A position with its checksum, so that the fuzzer does not have to guess one.
    if let Some((place, _)) = data.split_first_chunk() {
        let place = u64::from_be_bytes(*place);
        let filter = place.rotate_left(7);
        let (page, resume) = (ours.page(filter, place), ours.resume(place));
        assert_eq!(ours.read_page(&page, filter), Ok(place));
        assert_eq!(ours.read_resume(&resume), Ok(place));
        assert_eq!(ours.read_page(&page, filter.wrapping_add(1)), Err(Foreign));
        assert_eq!(
            [ours.read_resume(&page), ours.read_page(&resume, 0), theirs.read_resume(&resume)],
            [Err(Foreign); 3]
        );
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(place) = ours.read_resume(text) {
        assert_eq!(ours.resume(place), text, "there is one token for a place");
        assert_eq!(theirs.read_resume(text), Err(Foreign), "it is of one stream");
    }
    if let Ok(place) = ours.read_page(text, 0) {
        assert_eq!(ours.page(0, place), text, "there is one token for a place");
        assert_eq!(theirs.read_page(text, 0), Err(Foreign), "it is of one stream");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("token", super::token);
    }
}
