//! The service and its client over a real connection.

mod bad_input;
mod bed;
mod publishing;
mod reading;
mod stopping;
