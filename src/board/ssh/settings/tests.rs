//! The same answers as `ssh -G`, and what is refused.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use proptest::prelude::*;

use super::*;

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A home with this configuration.
fn config_of(home: &Path, text: &str) -> SshBoardConfig {
    let folder = home.join(".ssh");
    std::fs::create_dir_all(&folder).unwrap();
    write(&folder.join("config"), text);
    let mut config = SshBoardConfig::new("board".parse().unwrap(), &home.join("state"));
    config.ssh_folder = Some(folder);
    config.system_folder = home.join("etc");
    config.agent = Some(PathBuf::from("/agent"));
    config
}

fn target(host: &str) -> Target {
    Target { host: host.to_owned(), port: None, login: None }
}

fn route_of(text: &str, host: &str) -> Result<Vec<Host>, BoardError> {
    let home = tempfile::tempdir().unwrap();
    route(&config_of(home.path(), text), &target(host))
}

/// What `ssh -G` says of a keyword, once for each value.
fn from_ssh(file: &str, host: &str, keyword: &str) -> Vec<String> {
    let output = Command::new("ssh").args(["-G", "-F", file, host]).env("SSH_AUTH_SOCK", "").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(name, _)| *name == keyword).map(|(_, value)| value.to_owned()).collect()
}

const COMPARED: [&str; 16] = [
    "addressfamily",
    "batchmode",
    "certificatefile",
    "connecttimeout",
    "globalknownhostsfile",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "port",
    "proxyjump",
    "serveraliveinterval",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

/// Reads a configuration as we do and as ssh does, and compares what both take from it.
fn compare(text: &str, host: &str) -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    let config = config_of(home.path(), text);
    let asked = Asked { typed: host.to_owned(), login: None, user: user_here(), home: Some(home.path().to_owned()) };
    let folder = config.ssh_folder.unwrap();
    let found = read::read(&asked, &folder, &config.system_folder).unwrap_or_else(|flaw| panic!("{flaw:?}\n{text}"));
    let file = folder.join("config").display().to_string();
    for keyword in COMPARED {
        let mut ours: Vec<String> = match keyword {
            "hostname" => vec![read::host_name(&asked, &found).unwrap()],
            _ => found.all(keyword).iter().map(|value| value.words.join(" ")).collect(),
        };
        if ours.is_empty() {
            ours = from_ssh("/dev/null", host, keyword);
        }
        let yes = |value: &String| if value == "true" { "yes".to_owned() } else { value.clone() };
        let theirs: Vec<String> = from_ssh(&file, host, keyword);
        let shown = |values: &[String]| values.iter().map(yes).collect::<Vec<_>>().join(" | ").to_ascii_lowercase();
        // Times and flags are shown in one form by ssh.
        let (mut ours, theirs) = (shown(&ours), shown(&theirs));
        // ssh takes the home from the list of accounts.
        let of_system = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().dir;
        let theirs = theirs.replace(&format!("{}/", of_system.display()).to_ascii_lowercase(), "~/");
        ours = ours.replace(&format!("{}/", of_system.display()).to_ascii_lowercase(), "~/");
        if keyword == "connecttimeout"
            && let Some(number) = seconds(&ours)
        {
            ours = number.to_string();
        }
        // Debian's ssh has another default in batch mode.
        if keyword == "serveraliveinterval" && found.first(keyword).is_none() {
            continue;
        }
        if keyword == "proxyjump" && ours == "none" {
            ours.clear();
        }
        if keyword == "stricthostkeychecking" {
            ours = ours.replace("yes", "true").replace("off", "false").replace("no", "false");
            if ours.contains("accept") {
                ours = "accept-new".to_owned();
            }
        }
        let theirs = if keyword == "stricthostkeychecking" { theirs.replace("yes", "true") } else { theirs };
        if ours != theirs {
            return Err(format!("{keyword} for {host}: {ours:?}, and with ssh {theirs:?}, in\n{text}"));
        }
    }
    Ok(())
}

#[test]
fn configurations_mean_what_they_mean_to_ssh() {
    let included = tempfile::tempdir().unwrap();
    let [one, two] = ["10-one.conf", "20-two.conf"].map(|name| included.path().join(name));
    write(&one, "User of-one\nHost b*\n  Port 2201\n");
    write(&two, "Port 2202\nHost other\n  HostKeyAlias no\n");
    write(&included.path().join(".30-hidden.conf"), "HostKeyAlias hidden\n");
    let all = included.path().join("*.conf").display().to_string();
    let configs = [
        "".to_owned(),
        "Host board\n  HostName board.example.org\n  Port 2222\n  User alice\nHost *\n  User nobody\n  Port 1\n".to_owned(),
        "host=board\nhostname = \"%h.example.org\"\nPORT=7\n".to_owned(),
        "Host *.org !board.example.org\n User x\nHost !other *\n User y\n".to_owned(),
        "User first\nUser second\nHost board\nUser third\n".to_owned(),
        "IdentityFile ~/.ssh/a\nHost board\nIdentityFile \"~/.ssh/b c\"\nIdentityFile ~/.ssh/a\nHost other\nIdentityFile ~/.ssh/d\n".to_owned(),
        "IdentitiesOnly yes\nIdentityAgent none\nCertificateFile ~/x-cert.pub\nCertificateFile ~/y-cert.pub\n".to_owned(),
        "ProxyJump alice@one:22,two\nHost board\nProxyCommand nc %h %p\n".to_owned(),
        "Host board\nProxyJump none\nHost *\nProxyJump one\n".to_owned(),
        "StrictHostKeyChecking accept-new\nConnectTimeout 1m30s\nServerAliveInterval 30\nAddressFamily inet6\n".to_owned(),
        "StrictHostKeyChecking no\nBatchMode yes\nHostKeyAlias board.alias\n".to_owned(),
        "UserKnownHostsFile ~/a ~/b\nGlobalKnownHostsFile /x /y\n".to_owned(),
        "Match host board.example.org\nUser by-name\nMatch originalhost board user root,x*\nPort 3\nMatch all\nUser z\n".to_owned(),
        "Host board\nHostName board.example.org\nMatch host *.example.org\nUser by-name\nMatch originalhost board\nPort 3\n".to_owned(),
        "Match !host board\nUser not\nMatch Host BOARD\nUser capital\n".to_owned(),
        "User a\nMatch user a\nPort 5\nMatch localuser nobody-here\nPort 6\n".to_owned(),
        "Match final host board.example.org\nUser late\nHost board\nHostName board.example.org\n".to_owned(),
        "Match canonical\nUser never\nMatch all\nPort 9\n".to_owned(),
        format!("Include {all}\nUser outer\nPort 1\n"),
        format!("Host other\nInclude {all}\nHost board\nPort 4\n"),
        format!("Host board\nInclude {}\nHostKeyAlias back\n", one.display()),
        format!("Include {} {}\n", two.display(), included.path().join("missing").display()),
        "IgnoreUnknown Fancy*,x\nFancyOption yes\nSendEnv LANG\nHashKnownHosts yes\nGSSAPIAuthentication yes\n".to_owned(),
        "  # comment\n\tHost board # why\n\tUser 'quoted name'\n".to_owned(),
        "Host b?ard\nPort 11\nHost boar\nPort 12\n".to_owned(),
    ];
    let hosts = ["board", "board.example.org", "other"];
    let pairs = configs.iter().flat_map(|config| hosts.map(|host| (config, host)));
    let different: Vec<String> = pairs.filter_map(|(config, host)| compare(config, host).err()).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Lines that ssh takes in any order.
fn any_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "Host (board|other|\\*|b\\?ard|!board \\*|\\* !other)",
        "Match (final all|final host \\*\\.example|all|host board|originalhost board,other|!host board|user (root|alice)|host board user alice)",
        "(HostName |hostname=|HostName = )(%h\\.example|board|x\\.example\\.org)",
        "Port [1-9][0-9]{0,3}",
        "User (alice|bob)",
        "IdentityFile ~/\\.ssh/[abc]",
        "ProxyJump (none|one|alice@two:2222)",
        "StrictHostKeyChecking (yes|accept-new|ask)",
        "HostKeyAlias (one|two)",
        "IdentitiesOnly (yes|no)",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_configured_means_what_it_means_to_ssh(lines in prop::collection::vec(any_line(), 1..14)) {
        prop_assert_eq!(compare(&lines.join("\n"), "board"), Ok(()));
    }

    #[test]
    fn no_text_makes_reading_panic(text in "(?s).{0,200}") {
        let _ = route_of(&text, "board");
    }
}

#[test]
fn hosts_on_the_way_have_configurations_of_their_own() {
    let text = "Host board\nHostName 192.0.2.9\nProxyJump bob@two:2022\nUser alice\n\
        Host two\nHostName two.example\nProxyJump one\nIdentityFile ~/.ssh/%h\nHost one\nPort 2021\n";
    let hosts = route_of(text, "board").unwrap();
    let shown: Vec<_> =
        hosts.iter().map(|host| (host.name.as_str(), host.port, host.login.as_str(), host.is_hop)).collect();
    let me = user_here();
    assert_eq!(
        shown,
        [("one", 2021, me.as_str(), true), ("two.example", 2022, "bob", true), ("192.0.2.9", 22, "alice", false)]
    );
    assert!(hosts[1].identities.as_ref().unwrap()[0].ends_with(".ssh/two.example"));
    assert_eq!(hosts[2].known_as, "192.0.2.9");
    // Hops that are named together come in their order, whatever their own configuration says.
    let hosts = route_of("Host board\nProxyJump one,two\nHost two\nProxyJump three\n", "board").unwrap();
    assert_eq!(hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["one", "two", "board"]);
}

#[test]
fn jumps_in_a_circle_end() {
    for text in ["ProxyJump one\n", "Host board\nProxyJump one\nHost one\nProxyJump board\n"] {
        let error = route_of(text, "board").unwrap_err();
        assert!(error.is_configuration() && error.to_string().contains("one another"), "{error}");
    }
}

#[test]
fn values_are_resolved() {
    let text = "Host board\nHostName Board.Example\nPort 2222\nIdentityAgent ~/agent\nUserKnownHostsFile ~/%k ~/two\n\
        GlobalKnownHostsFile none\nConnectTimeout 7\nServerAliveInterval 3\nAddressFamily inet\nBatchMode yes\n";
    let home = tempfile::tempdir().unwrap();
    let config = config_of(home.path(), text);
    let host = route(&config, &target("board")).unwrap().remove(0);
    assert_eq!((host.name.as_str(), host.known_as.as_str()), ("board.example", "[board.example]:2222"));
    assert_eq!(host.agent, Some(home.path().join("agent")));
    let files = [home.path().join("[board.example]:2222"), home.path().join("two"), config.known_hosts.clone()];
    assert_eq!(host.known_hosts, files);
    assert_eq!((host.connect_timeout, host.keepalive), (Some(Duration::from_secs(7)), Some(Duration::from_secs(3))));
    assert_eq!((host.family, host.is_batch, host.accept_new), (Family::Inet, true, None));
    // What was typed comes first.
    let typed = Target { host: "board".to_owned(), port: Some(22), login: Some("carol".to_owned()) };
    let host = route(&config, &typed).unwrap().remove(0);
    assert_eq!((host.port, host.login.as_str(), host.known_plain), (22, "carol", None));
    // And with an alias there is no port in known hosts.
    let host = route_of("HostKeyAlias Alias\nPort 2222\nIdentityAgent none\n", "board").unwrap().remove(0);
    assert_eq!(
        (host.known_as.as_str(), host.certified_as.as_str(), host.known_plain, host.agent),
        ("alias", "alias", None, None)
    );
}

#[test]
fn what_is_not_understood_is_refused_by_name_where_it_counts() {
    for option in [
        "ProxyCommand nc %h %p",
        "PKCS11Provider /lib/x.so",
        "BindAddress 192.0.2.1",
        "CanonicalizeHostname yes",
        "PubkeyAuthentication no",
        "PreferredAuthentications password",
        "RevokedHostKeys /etc/revoked",
        "KnownHostsCommand /bin/x",
    ] {
        let error = route_of(&format!("\nHost board\n  {option}\n"), "board").unwrap_err();
        let BoardError::SshOption { why, .. } = &error else { panic!("{error:?}") };
        assert!(why.contains("line 3") && error.is_configuration(), "{why}");
        assert!(error.hint().unwrap().contains("--ssh-program ssh"));
        route_of(&format!("Host other\n  {option}\n"), "board").unwrap();
    }
    for fine in
        ["ProxyCommand none", "PreferredAuthentications keyboard-interactive,publickey", "PubkeyAuthentication yes"]
    {
        route_of(fine, "board").unwrap();
    }
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, line) in [
        ("Host board\nPort x\n", 2),
        ("Port 0", 1),
        ("Port", 1),
        ("User \"x", 1),
        ("User a b", 1),
        ("NoSuchKeyword x", 1),
        ("Match host", 1),
        ("Match nonsense x", 1),
        ("Host", 1),
        ("HostName %q", 1),
        ("IdentityFile %C", 1),
        ("IdentityFile ${P2P_WORKER_NO_SUCH}/x", 1),
        ("ProxyJump a b", 1),
        ("ProxyJump -x", 1),
        ("IdentitiesOnly perhaps", 1),
        ("RequiredRSASize many", 1),
        ("Include", 1),
    ] {
        let error = route_of(text, "board").unwrap_err();
        assert!(matches!(&error, BoardError::SshConfig { line: found, .. } if *found == line), "{text}: {error:?}");
        assert!(error.hint().is_some());
    }
    // As ssh has it, one that others can write is not used.
    let home = tempfile::tempdir().unwrap();
    let config = config_of(home.path(), "User x\n");
    let path = home.path().join(".ssh/config");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(route(&config, &target("board")), Err(BoardError::SshConfig { line: 0, .. })));
}

#[test]
fn files_that_include_themselves_end() {
    let home = tempfile::tempdir().unwrap();
    let config = config_of(home.path(), "Include config\n");
    let error = route(&config, &target("board")).unwrap_err();
    assert!(error.to_string().contains("include one another"), "{error}");
}

#[test]
fn included_files_are_looked_for_beside_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let config = config_of(home.path(), "Include conf.d/*\nInclude ~/.ssh/more\n");
    std::fs::create_dir_all(home.path().join(".ssh/conf.d")).unwrap();
    std::fs::create_dir_all(home.path().join("etc/ssh_config.d")).unwrap();
    write(&home.path().join(".ssh/conf.d/b"), "Port 2\n");
    write(&home.path().join(".ssh/conf.d/a"), "Port 1\n");
    write(&home.path().join(".ssh/more"), "User more\n");
    write(&home.path().join("etc/ssh_config"), "Include ssh_config.d/*.conf\nUser less\n");
    write(&home.path().join("etc/ssh_config.d/x.conf"), "HostKeyAlias of-system\n");
    let host = route(&config, &target("board")).unwrap().remove(0);
    assert_eq!((host.port, host.login.as_str(), host.known_as.as_str()), (1, "more", "of-system"));
}

#[test]
fn a_criterion_that_is_not_evaluated_is_noted_and_its_block_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let config =
        config_of(home.path(), "Match exec \"true\" host board\nUser x\nMatch exec \"true\" host other\nPort 1\n");
    let asked = Asked { typed: "board".to_owned(), login: None, user: user_here(), home: None };
    let found = read::read(&asked, config.ssh_folder.as_deref().unwrap(), &config.system_folder).unwrap();
    assert_eq!(found.first("user"), None);
    assert!(found.notes.len() == 1 && found.notes[0].contains("line 1: Match exec"), "{:?}", found.notes);
}

#[test]
fn algorithms_are_narrowed_and_never_to_nothing() {
    let host = route_of("Ciphers aes256-ctr\n", "board").unwrap().remove(0);
    assert!(host.ciphers.allows("aes256-ctr") && !host.ciphers.allows("aes128-ctr"));
    assert!(none_left(&host.ciphers).unwrap().to_string().contains("line 1"));
}
