//! Signing in with our own SSH to real OpenSSH servers: certificates, agents, security keys, known hosts, jumps.

use std::path::Path;

use p2p_worker::board::{
    Board, BoardError, BoardEvent,
    ssh::{SshBoard, SshBoardConfig},
};

use super::{
    board_support::{Served, event, line, make_key, send, soon},
    openssh_support::{Agent, Sshd, certify, keygen, security_key_agent},
};

async fn user(config: &SshBoardConfig) -> Result<String, BoardError> {
    soon("an answer", SshBoard::new(config.clone()).user()).await.map(|name| name.as_str().to_owned())
}

/// That it signs in.
async fn works(config: &SshBoardConfig) {
    assert_eq!(user(config).await.unwrap(), "alice");
}

fn authority(folder: &Path, name: &str, kind: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    keygen(&["-q", "-t", kind, "-N", "", "-C", "authority", "-f"], &path, &[]);
    path
}

fn login() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_sign_in_from_files_and_from_an_agent() {
    let sshd = Sshd::start("TrustedUserCAKeys DIR/ca.pub\n", |folder| {
        authority(folder, "ca", "ed25519");
    });
    let (ca, me) = (sshd.path("ca"), login());
    let valid = ["-n", me.as_str(), "-V", "+1h"];
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = sshd.path(&format!("key_{kind}"));
        keygen(&["-q", "-t", kind, "-N", "", "-f"], &key, &[]);
        let mut config = sshd.config();
        config.identities = vec![key.clone()];
        // The key alone is not known.
        assert!(matches!(user(&config).await, Err(BoardError::SignInRefused { .. })));
        certify(&ca, &key, &valid);
        works(&config).await;
    }
    // One that has expired is refused, and is named.
    let late = make_key(sshd.folder.path(), "late", "");
    certify(&ca, &late, &["-n", &me, "-V", "20200101:20200102"]);
    let mut config = sshd.config();
    config.identities = vec![late];
    let refused = user(&config).await.unwrap_err();
    assert!(refused.to_string().contains("a certificate of "), "{refused}");

    // A certificate elsewhere, for a key that the agent holds without it; then with it.
    let agent = Agent::start(sshd.folder.path());
    let key = make_key(sshd.folder.path(), "held", "passphrase");
    agent.add(&key, "passphrase");
    certify(&ca, &key, &valid);
    std::fs::rename(sshd.path("held-cert.pub"), sshd.path("elsewhere.pub")).unwrap();
    let mut config = sshd.config_with(&format!("CertificateFile {}\n", sshd.path("elsewhere.pub").display()));
    config.agent = Some(agent.socket.clone());
    works(&config).await;
    let mut config = sshd.config_with("IdentityFile none\n");
    config.agent = Some(agent.socket.clone());
    assert!(matches!(user(&config).await, Err(BoardError::SignInRefused { .. })));
    std::fs::rename(sshd.path("elsewhere.pub"), sshd.path("held-cert.pub")).unwrap();
    agent.add(&key, "passphrase");
    works(&config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_certificate_is_known_by_its_authority() {
    let sshd =
        Sshd::start("HostCertificate DIR/host_ed25519-cert.pub\nHostCertificate DIR/host_rsa-cert.pub\n", |folder| {
            let ca = authority(folder, "ca", "rsa");
            authority(folder, "other", "ed25519");
            for kind in ["ed25519", "rsa"] {
                certify(
                    &ca,
                    &folder.join(format!("host_{kind}")),
                    &["-h", "-n", "127.0.0.1,board.example", "-V", "+1h"],
                );
            }
        });
    let key = |name: &str| std::fs::read_to_string(sshd.path(name)).unwrap();
    let known = |text: &str| std::fs::write(sshd.path("known_hosts"), text).unwrap();
    let config = sshd.config();
    for names in ["[127.0.0.1]:*", "*", "127.0.0.1"] {
        known(&format!("@cert-authority {names} {}", key("ca.pub")));
        works(&config).await;
    }
    // Another authority, or the same one for other hosts, is none.
    for text in
        [format!("@cert-authority * {}", key("other.pub")), format!("@cert-authority *.example {}", key("ca.pub"))]
    {
        known(&text);
        assert!(matches!(user(&config).await, Err(BoardError::UnknownHost { .. })));
    }
    // But the key in it may be known by itself.
    known(&format!("@cert-authority * {}{}", key("other.pub"), sshd.known_line("ed25519")));
    works(&config).await;
    known(&format!("@cert-authority * {}@revoked * {}", key("ca.pub"), key("ca.pub")));
    assert!(matches!(user(&config).await, Err(BoardError::HostKeyRevoked { .. })));
    // The name that is in the certificate counts, whatever it is called in the configuration.
    known(&format!("@cert-authority * {}", key("ca.pub")));
    for (alias, expected) in [("board.example", true), ("elsewhere.example", false)] {
        let mut config = sshd.config_with(&format!("HostKeyAlias {alias}\n"));
        config.identities = vec![sshd.path("alice")];
        let result = user(&config).await;
        match result {
            Ok(_) => assert!(expected),
            Err(BoardError::HostCertificate { why, .. }) => assert!(!expected && why.contains(alias), "{why}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_host_holds_for_its_time_and_as_a_hosts() {
    for (arguments, word) in
        [(&["-h", "-n", "127.0.0.1", "-V", "20200101:20200102"][..], "valid"), (&["-h", "-V", "+1h"], "not for")]
    {
        let sshd = Sshd::start("HostCertificate DIR/host_ed25519-cert.pub\n", |folder| {
            let ca = authority(folder, "ca", "ed25519");
            certify(&ca, &folder.join("host_ed25519"), arguments);
        });
        let ca = std::fs::read_to_string(sshd.path("ca.pub")).unwrap();
        std::fs::write(sshd.path("known_hosts"), format!("@cert-authority * {ca}")).unwrap();
        let refused = user(&sshd.config()).await.unwrap_err();
        assert!(matches!(&refused, BoardError::HostCertificate { why, .. } if why.contains(word)), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hashed_names_and_any_kind_of_host_key_are_known() {
    let sshd = Sshd::start("", |_| {});
    let config = sshd.config();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        std::fs::write(sshd.path("known_hosts"), sshd.known_line(kind)).unwrap();
        works(&config).await;
        keygen(&["-q", "-H", "-f"], &sshd.path("known_hosts"), &[]);
        assert!(std::fs::read_to_string(sshd.path("known_hosts")).unwrap().starts_with("|1|"));
        works(&config).await;
    }
    // An RSA key that is shorter than the user wants is none.
    std::fs::write(sshd.path("known_hosts"), sshd.known_line("rsa")).unwrap();
    for (least, expected) in [("2048", true), ("8192", false)] {
        let mut config = sshd.config_with(&format!("RequiredRSASize {least}\n"));
        config.identities = vec![sshd.path("alice")];
        let result = user(&config).await;
        assert!(if expected { result.is_ok() } else { matches!(result, Err(BoardError::HostKeyShort { .. })) });
    }
    // Several files; the one that has it counts.
    std::fs::write(sshd.path("known_hosts"), sshd.known_line("ed25519")).unwrap();
    let mut config = sshd.config_with("UserKnownHostsFile ~/missing ~/theirs\nGlobalKnownHostsFile none\n");
    config.identities = vec![sshd.path("alice")];
    std::fs::rename(sshd.path("known_hosts"), sshd.path("home/theirs")).unwrap();
    works(&config).await;
    std::fs::write(sshd.path("home/theirs"), "").unwrap();
    assert!(matches!(user(&config).await, Err(BoardError::UnknownHost { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_in_an_agent_do_not_hide_the_one_that_was_named() {
    let sshd = Sshd::start("MaxAuthTries 3\n", |_| {});
    let agent = Agent::start(sshd.folder.path());
    for number in 0..8 {
        agent.add(&make_key(sshd.folder.path(), &format!("more{number}"), ""), "");
    }
    agent.add(&sshd.path("alice"), "");
    let with = |lines: &str| {
        let mut config = sshd.config_with(lines);
        config.agent = Some(agent.socket.clone());
        config
    };
    let refused = user(&with("")).await.unwrap_err();
    assert!(refused.to_string().contains("Too many authentication failures"), "{refused}");
    let named = format!("IdentityFile {}\n", sshd.path("alice").display());
    // A key that is named comes first, as with ssh, and is all there is with IdentitiesOnly.
    works(&with(&named)).await;
    works(&with(&format!("{named}IdentitiesOnly yes\nIdentityAgent none\n"))).await;
    // The public half is enough where the agent has the rest.
    std::fs::remove_file(sshd.path("alice")).unwrap();
    works(&with(&named)).await;
    works(&with(&format!("IdentityFile {}\n", sshd.path("alice.pub").display()))).await;
    let error = user(&with(&format!("{named}IdentityAgent none\n"))).await.unwrap_err();
    assert!(matches!(error, BoardError::KeyNotHeld { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_key_signs_in_through_its_agent() {
    let sshd = Sshd::start("", |_| {});
    let key = make_key(sshd.folder.path(), "hardware", "");
    let socket = security_key_agent(sshd.folder.path(), &key);
    let mut config = sshd.config_with("IdentityFile none\n");
    config.agent = Some(socket);
    assert!(matches!(user(&config).await, Err(BoardError::SignInRefused { .. })));
    let public = std::fs::read_to_string(sshd.path("hardware.sk.pub")).unwrap();
    std::fs::write(sshd.path("authorized"), public).unwrap();
    works(&config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_is_reached_through_other_hosts() {
    let served = Served::with(&["alice"]).await;
    let [near, far] = [(); 2].map(|()| Sshd::start("AllowTcpForwarding yes\n", |_| {}));
    let board_key = served.path("alice").display().to_string();
    let lines = format!(
        "Host board\n HostName 127.0.0.1\n Port {}\n ProxyJump near,far\n IdentityFile {board_key}\n\
         Host near\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\nHost far\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\n",
        served.port,
        near.port,
        near.path("alice").display(),
        far.port,
        far.path("alice").display(),
    );
    let mut config = near.config_with(&lines);
    config.address = "board".parse().unwrap();
    let of_board = std::fs::read_to_string(served.path("known_hosts")).unwrap();
    let known = [of_board, near.known_line("ed25519")].concat();
    std::fs::write(near.path("home/.ssh/known_hosts"), &known).unwrap();
    // A host on the way that is not known is refused; that it may be new is for the board alone.
    std::fs::write(near.path("known_hosts"), "").unwrap();
    config.accept_new = true;
    let error = user(&config).await.unwrap_err();
    assert!(matches!(&error, BoardError::UnknownHost { is_hop: true, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("ssh [127.0.0.1]"), "{error:?}");
    std::fs::write(near.path("known_hosts"), far.known_line("rsa")).unwrap();
    works(&config).await;

    let mut link = soon("joining", SshBoard::new(config.clone()).join(&"x".parse().unwrap())).await.unwrap();
    assert_eq!(event(&mut link).await, BoardEvent::Joined);
    send(&link, "through two hosts").await;
    assert_eq!(line(&mut link).await, "through two hosts");
    // When a host on the way is gone, so is the connection.
    drop(far);
    assert!(matches!(event(&mut link).await, BoardEvent::Lost(_)));
    drop(link);

    let closed = Sshd::start("AllowTcpForwarding no\n", |_| {});
    let lines = format!(
        "Host board\n HostName 127.0.0.1\n Port {}\n ProxyJump 127.0.0.1:{}\n IdentityFile {board_key}\n\
         Host *\n IdentityFile {}\n UserKnownHostsFile {}\n",
        served.port,
        closed.port,
        closed.path("alice").display(),
        closed.path("known_hosts").display(),
    );
    let mut config = closed.config_with(&lines);
    config.address = "board".parse().unwrap();
    let error = user(&config).await.unwrap_err();
    assert!(matches!(&error, BoardError::Jump { .. }), "{error:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_more_than_a_key_is_wanted_for_is_said() {
    let sshd =
        Sshd::start("AuthenticationMethods publickey,keyboard-interactive\nKbdInteractiveAuthentication yes\n", |_| {});
    let error = user(&sshd.config()).await.unwrap_err();
    assert!(matches!(&error, BoardError::MoreThanAKey { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("--ssh-program"));
}
