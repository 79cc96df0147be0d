//! The keywords of ssh_config(5), as of OpenSSH 10, and what becomes of each here.

/// What becomes of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its first value holds.
    First,
    /// All its values hold, in their order.
    All,
    /// It changes where a connection goes or how it is authenticated, and is not understood unless it has one of these
    /// values.
    Only(&'static [&'static str]),
    /// It changes nothing that we do.
    Idle,
}

/// Other names of the same thing.
const ALIASES: [(&str, &str); 3] = [
    ("smartcarddevice", "pkcs11provider"),
    ("pubkeyacceptedkeytypes", "pubkeyacceptedalgorithms"),
    ("dsaauthentication", "pubkeyauthentication"),
];

const APPLIED: [&str; 22] = [
    "addressfamily",
    "batchmode",
    "casignaturealgorithms",
    "ciphers",
    "connecttimeout",
    "globalknownhostsfile",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "ignoreunknown",
    "kexalgorithms",
    "macs",
    "port",
    "proxyjump",
    "pubkeyacceptedalgorithms",
    "requiredrsasize",
    "serveraliveinterval",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

const ADDED: [&str; 2] = ["certificatefile", "identityfile"];

const ONLY: [(&str, &[&str]); 13] = [
    ("bindaddress", &[]),
    ("bindinterface", &[]),
    ("canonicalizehostname", &["no", "false"]),
    ("knownhostscommand", &["none"]),
    ("pkcs11provider", &["none"]),
    ("preferredauthentications", &["publickey"]),
    ("proxycommand", &["none"]),
    ("proxyusefdpass", &["no", "false"]),
    ("pubkeyauthentication", &["yes", "true", "unbound", "host-bound"]),
    ("refuseconnection", &[]),
    ("remotecommand", &["none"]),
    ("revokedhostkeys", &["none"]),
    ("sessiontype", &["default"]),
];

const IDLE: [&str; 80] = [
    "addkeystoagent",
    "afstokenpassing",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "challengeresponseauthentication",
    "channeltimeout",
    "checkhostip",
    "cipher",
    "clearallforwardings",
    "compression",
    "compressionlevel",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fallbacktorsh",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapiclientidentity",
    "gssapidelegatecredentials",
    "gssapikexalgorithms",
    "gssapikeyexchange",
    "gssapirenewalforcesrekey",
    "gssapiserveridentity",
    "gssapitrustdns",
    "hashknownhosts",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "hostbasedkeytypes",
    "ipqos",
    "kbdinteractiveauthentication",
    "kbdinteractivedevices",
    "keepalive",
    "kerberosauthentication",
    "kerberostgtpassing",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "obscurekeystroketiming",
    "passwordauthentication",
    "permitlocalcommand",
    "permitremoteopen",
    "protocol",
    "rekeylimit",
    "remoteforward",
    "requesttty",
    "rhostsrsaauthentication",
    "rsaauthentication",
    "securitykeyprovider",
    "sendenv",
    "serveralivecountmax",
    "setenv",
    "skeyauthentication",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tag",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "useprivilegedport",
    "useroaming",
];

const MORE_IDLE: [&str; 6] =
    ["usekeychain", "verifyhostkeydns", "versionaddendum", "visualhostkey", "warnweakcrypto", "xauthlocation"];

/// The name that a keyword (in lower case) goes by.
pub(super) fn canonical(keyword: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == keyword).map_or(keyword, |(_, name)| name)
}

/// What becomes of a canonical keyword; `None` if nobody knows it.
pub(super) fn kind(keyword: &str) -> Option<Kind> {
    if APPLIED.contains(&keyword) {
        return Some(Kind::First);
    }
    if ADDED.contains(&keyword) {
        return Some(Kind::All);
    }
    if let Some((_, values)) = ONLY.iter().find(|(name, _)| *name == keyword) {
        return Some(Kind::Only(values));
    }
    (IDLE.contains(&keyword) || MORE_IDLE.contains(&keyword)).then_some(Kind::Idle)
}
