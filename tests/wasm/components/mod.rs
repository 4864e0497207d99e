//! Nothing that a component says of itself costs the host more than a bound: names, sections, ports, reasons.

mod compiling;
mod fuzz;
mod names;
