//! What an access file says, before names are looked up: the one list of its keys.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::pattern::Pattern;
use super::token::TokenHash;
use super::values::{ByteRate, CertificateName, Expiry, Items, KeyFile, PlainText};
use crate::topology::one_or_more::OneOrMore;
use crate::topology::reader::{FromNode, Owner, Reader, choice, keys};
use crate::topology::values::{Count, Flag, List, NamedTable, Size, Table};
use crate::topology::yaml::{NodeRef, View};

keys! {
    /// Callers of the bus, and what each of them may do. What no rule allows is refused.
    struct AccessFile {
        /// The version of this file's format: `access/v1`.
        wattle(required): Version,
        /// Issuers of JSON Web Tokens, by name.
        issuers: NamedTable<IssuerKeys>,
        /// Callers by name, and the credentials of each. `anonymous`, which is not declared, is the caller without
        /// any.
        principals: NamedTable<PrincipalKeys>,
        /// What principals may do: everything that one of the rules allows.
        rules: List<RuleKeys>,
        /// Limits of principals, by their names. A caller that is several principals has the lowest limit of each
        /// kind. Default: unlimited.
        limits: NamedTable<LimitKeys>,
    }
}

choice! {
    /// Versions of the format.
    enum Version {
        /// The format that this schema describes.
        V1 = "access/v1",
    }
}

keys! {
    /// An issuer of JSON Web Tokens. A token needs the claims `iss`, `aud`, `sub` and `exp`, and is valid for at most
    /// 24 hours.
    struct IssuerKeys {
        /// The `iss` of its tokens.
        issuer(required): PlainText,
        /// The `aud` that its tokens for this bus have.
        audience(required): PlainText,
        /// File with its public keys, a JSON Web Key Set. Relative paths start from the folder of this file. The file
        /// is read again when it changes; nothing is fetched.
        keys(required): KeyFile,
        /// The algorithms by which it signs.
        algorithms(required): Items<Signing>,
    }
}

choice! {
    /// Algorithms of signatures.
    enum SigningName {
        /// ECDSA with P-256 and SHA-256.
        Es256 = "ES256",
        /// ECDSA with P-384 and SHA-384.
        Es384 = "ES384",
        /// EdDSA with Ed25519.
        EdDsa = "EdDSA",
        /// RSA with SHA-256.
        Rs256 = "RS256",
        /// RSA with SHA-384.
        Rs384 = "RS384",
        /// RSA with SHA-512.
        Rs512 = "RS512",
        /// RSA-PSS with SHA-256.
        Ps256 = "PS256",
        /// RSA-PSS with SHA-384.
        Ps384 = "PS384",
        /// RSA-PSS with SHA-512.
        Ps512 = "PS512",
    }
}

keys! {
    /// A caller, recognised by any of its credentials. At least one is required.
    struct PrincipalKeys {
        /// `sha256:` and the hash of a token, or a list of them during a rotation. `wattle token new` prints both.
        token: OneOrMore<TokenHash>,
        /// A URI or DNS name in the subject alternative names of a client certificate, or a list of them.
        certificate: OneOrMore<CertificateName>,
        /// The name of an issuer in this file, whose tokens are this principal if they have all of `claim`.
        issuer: PlainText,
        /// Claims, by name. The value in the token is equal to the text, or is a list that has it.
        claim: Table<PlainText>,
        /// When all of its credentials expire: a date, or a time with its zone. Default: never.
        expires: Expiry,
    }
}

keys! {
    /// A rule: each principal of `who` may do all of `may`, to everything that the other keys name.
    struct RuleKeys {
        /// Principals by name, or `anonymous`: the caller without credentials.
        who(required): Items<PlainText>,
        /// What they may do.
        may(required): Items<VerbName>,
        /// Topics, as patterns of full names: `shop/orders`, `shop/*`. A `*` stands for any characters of one part.
        topics: Items<Pattern>,
        /// Subscribers, as patterns of full names.
        subscribers: Items<Pattern>,
        /// `true`: the rule is also for what belongs to no topic and no subscriber, such as metrics, backups, the
        /// clock. Default false.
        bus: Flag,
    }
}

choice! {
    /// What rules can allow.
    enum VerbName {
        /// Append events to topics.
        Publish = "publish",
        /// Read the events of topics, also those that failed or are retried at their subscribers.
        Read = "read",
        /// Read and import the state of subscribers' handlers.
        State = "state",
        /// See status, settings, versions, and lineage without the data of events.
        Inspect = "inspect",
        /// Pause, resume, seek, release, redrive, drop and take snapshots of subscribers; with `bus`, confirm the
        /// clock.
        Operate = "operate",
        /// Take events of subscribers whose handlers run outside, and settle them.
        Consume = "consume",
        /// Deploy, promote, pin, roll back and compare versions of plugins.
        Deploy = "deploy",
        /// Read and change the topology of namespaces, which patterns such as `shop/*` name; with `bus`, delete the
        /// data of removed topics.
        Apply = "apply",
        /// Write a backup of the whole bus. Needs `bus`.
        Backup = "backup",
        /// Read metrics. Needs `bus`.
        Metrics = "metrics",
    }
}

keys! {
    /// Limits of one principal, over all of its connections.
    struct LimitKeys {
        /// Maximum number of connections.
        connections: Count<1, { u32::MAX }>,
        /// Maximum rate of published bytes, such as `1MiB/s`.
        publish: ByteRate,
        /// Maximum bytes of published events that wait for the disk.
        in_flight: Size<1, { u64::MAX }>,
    }
}

/// An algorithm of signatures with a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signing(pub(crate) SigningName);

impl JsonSchema for Signing {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        SigningName::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        SigningName::json_schema(generator)
    }
}

impl FromNode for Signing {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let View::Scalar(scalar) = node.view() {
            let help = "write algorithms with public keys, such as ES256, EdDSA, RS256 or PS256";
            let why = match scalar.text {
                "HS256" | "HS384" | "HS512" => "it has no public key: the bus could sign tokens itself",
                "none" => "it signs nothing",
                _ => return SigningName::read(node, owner, reader).map(Self),
            };
            return reader.bad(node.span(), format!("`{}` cannot be `{}`: {why}", owner.key, scalar.text), help);
        }
        SigningName::read(node, owner, reader).map(Self)
    }
}
