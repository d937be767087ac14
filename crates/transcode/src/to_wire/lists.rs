//! Lists: JSON arrays as records of one field, packed or not. Must not know what an element is.

use super::{Reader, Written};
use crate::fault::Outcome;
use crate::plan::Field;

impl Reader<'_> {
    pub(super) fn list(&mut self, field: &Field, packed: bool, depth: u32) -> Outcome<()> {
        if self.peek() != b'[' {
            return self.mismatch("expected a list");
        }
        if self.is_empty(b']') {
            return Ok(());
        }
        let start = self.out.len();
        let mut length = 0;
        if packed {
            field.head.write(&self.plan.texts, &mut self.out);
            length = self.begin();
        }
        let mut index = 0;
        loop {
            self.step()?;
            let element = self.out.len();
            if !packed {
                field.head.write(&self.plan.texts, &mut self.out);
            }
            match self.value(field.op, depth) {
                Ok(Written::Nothing) => self.out.truncate(element),
                Ok(_) => {}
                Err(fault) => return Err(fault.under_element(index)),
            }
            index += 1;
            if self.is_last(b']')? {
                break;
            }
        }
        if packed {
            self.end(length);
            // All elements may have been left out.
            if self.out.len() == length + 1 {
                self.out.truncate(start);
            }
        }
        Ok(())
    }
}
