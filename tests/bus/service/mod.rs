//! The service and its client over a real connection.

mod bad_input;
mod bed;
mod budgets;
mod duplicates;
mod fuzz;
mod ports;
mod publishing;
mod reading;
mod stopping;
mod storage;
mod streams;
mod subscribers;
