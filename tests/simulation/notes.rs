//! What a history did, for whoever has to find out what went wrong.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// So many steps are shown of one that failed.
const STEPS: usize = 40;

/// The last steps, for whoever has to find out what went wrong.
#[derive(Clone)]
pub(crate) struct Notes(Rc<RefCell<State>>);

struct State {
    is_printed: bool,
    head: String,
    steps: VecDeque<String>,
}

impl Notes {
    /// `is_printed`: each step is also printed at once.
    pub(crate) fn new(is_printed: bool) -> Self {
        Self(Rc::new(RefCell::new(State { is_printed, head: String::new(), steps: VecDeque::new() })))
    }

    pub(crate) fn head(&self, text: String) {
        let mut state = self.0.borrow_mut();
        if state.is_printed {
            eprintln!("{text}");
        }
        state.head = text;
    }

    pub(crate) fn step(&self, text: String) {
        let mut state = self.0.borrow_mut();
        if state.is_printed {
            eprintln!("  {text}");
        }
        state.steps.push_back(text);
        if state.steps.len() > STEPS {
            state.steps.pop_front();
        }
    }

    pub(crate) fn show(&self) -> String {
        let state = self.0.borrow();
        let steps: Vec<String> = state.steps.iter().map(|step| format!("  {step}\n")).collect();
        format!("{}\n{}", state.head, steps.concat())
    }
}
