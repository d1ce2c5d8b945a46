//! What is to run for which event.

use std::cell::OnceCell;
use std::iter;

use roster::Kind;

use crate::actions::Callback;

/// One callback and what it is for.
pub struct On {
    /// The event, none for all (`*`).
    pub kind: Option<Kind>,
    /// What to do.
    pub callback: Callback,
    /// File and line of the directive; empty if there is none.
    pub place: String,
    /// What to call it in the log: `exec announce (nginx.conf:14)`.
    pub label: String,
}

impl On {
    /// Whether it is to run for an event of this kind.
    pub fn matches(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }
}

/// Callbacks in their order. The list only grows, so that one which runs may add others, and
/// reading it writes to no memory, which a worker that has just been forked would have to copy.
#[derive(Default)]
pub struct Callbacks(OnceCell<Box<Link>>);

struct Link {
    on: On,
    rest: Callbacks,
}

impl Callbacks {
    /// Adds one at the end.
    pub fn push(&self, on: On) {
        let mut end = self;
        while let Some(link) = end.0.get() {
            end = &link.rest;
        }
        end.0.get_or_init(|| Box::new(Link { on, rest: Callbacks::default() }));
    }

    /// Takes the first one off.
    pub fn pop(&mut self) -> Option<On> {
        let Link { on, rest } = *self.0.take()?;
        *self = rest;
        Some(on)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &On> {
        iter::successors(self.0.get(), |link| link.rest.0.get()).map(|link| &link.on)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        // Link by link: a long list must not end in a deep recursion.
        let mut next = self.0.take();
        while let Some(mut link) = next {
            next = link.rest.0.take();
        }
    }
}
