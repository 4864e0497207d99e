//! What cargo alone cannot do: set-up, the whole test run.

fn main() {}
