//! Who may do what: each method of the contract with each kind of credentials, over a real connection.

mod bed;
mod matrix;
mod streams;
