//! A task that behaves, from its first byte to its exit status.

use p2p_jail::spec::*;

use crate::harness::*;

#[test]
fn echoes_through_the_frames_pipe() {
    for starter in starters() {
        let mut jail = Jail::start(starter, &shell(starter, "cat >&3; echo one; echo two >&2; exit 7"));
        jail.feed(b"the future");
        let finished = jail.finish();
        assert_eq!(finished.ended().0, Exit::Code(7), "{finished:?}");
        assert_eq!(finished.ended().1, None);
        assert_eq!(finished.frames, b"the future");
        assert_eq!(finished.text, "one\ntwo\n");
    }
}
