use super::*;

fn queue() -> Queue {
    // SAFETY: the name is a C string.
    Queue::of(unsafe { libc::memfd_create(c"queue".as_ptr(), libc::MFD_CLOEXEC) })
}

fn ticket(number: u32) -> Ticket {
    Ticket { number, place: number % PLACES, ..Ticket::default() }
}

/// A process that runs something, answers with what that returns, and stays.
struct Elsewhere {
    pid: libc::pid_t,
    answer: c_int,
}

fn elsewhere(run: impl FnOnce() -> u8) -> Elsewhere {
    let mut answer = [0; 2];
    // SAFETY: the child calls nothing but this crate's system calls, and ends without returning.
    unsafe {
        libc::pipe(answer.as_mut_ptr());
        let pid = libc::fork();
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::write(answer[1], [run()].as_ptr().cast(), 1);
            loop {
                libc::pause();
            }
        }
        libc::close(answer[1]);
        Elsewhere { pid, answer: answer[0] }
    }
}

fn answer(of: &Elsewhere) -> u8 {
    let (mut answer, mut fds) = ([0], [pollfd(of.answer)]);
    poll(&mut fds, 20_000);
    assert!(fds[0].revents != 0, "no answer");
    // SAFETY: room for one byte.
    unsafe { libc::read(of.answer, answer.as_mut_ptr().cast(), 1) };
    answer[0]
}

fn is_waiting(of: &Elsewhere) -> bool {
    let mut fds = [pollfd(of.answer)];
    poll(&mut fds, 50);
    fds[0].revents == 0
}

fn end(of: Elsewhere) {
    // SAFETY: our own child and descriptor.
    unsafe {
        libc::kill(of.pid, libc::SIGKILL);
        libc::waitpid(of.pid, std::ptr::null_mut(), 0);
        libc::close(of.answer);
    }
}

#[test]
fn notes_stay_in_the_file() {
    let queue = queue();
    assert_eq!(queue.notes(), Notes::default());
    let notes = Notes { turned_away: 1, last: u32::MAX, last_place: 7 };
    queue.set_notes(notes);
    queue.turn_away();
    assert_eq!(queue.notes(), Notes { turned_away: 2, ..notes });
}

#[test]
fn sixteen_run_and_the_next_waits_for_the_end_of_one() {
    let queue = queue();
    let mut running: Vec<_> =
        (0..16).map(|n| elsewhere(|| queue.wait(ticket(n), -1) as u8)).collect();
    assert!(running.iter().all(|one| answer(one) == Place::Begins as u8));
    let next = elsewhere(|| queue.wait(ticket(16), -1) as u8);
    assert!(is_waiting(&next));
    assert_eq!(queue.place(16 + PLACES, PLACES), None);
    end(running.remove(3));
    assert_eq!(answer(&next), Place::Begins as u8);
    running.into_iter().chain([next]).for_each(end);
}

#[test]
fn they_begin_in_the_order_of_their_numbers() {
    let queue = queue();
    let (mut gate, number) = ([0; 2], 41);
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe(gate.as_mut_ptr()) };
    let first = elsewhere(|| {
        poll(&mut [pollfd(gate[0])], 10_000);
        queue.wait(ticket(number), -1) as u8
    });
    let after = Ticket { after: number, after_place: number, ..ticket(number + 1) };
    let second = elsewhere(|| queue.wait(after, -1) as u8);
    assert!(is_waiting(&second));
    queue.write(&number.to_ne_bytes(), Queue::helper_at(number));
    queue.write(&(first.pid as u32).to_ne_bytes(), Queue::helper_at(number) + 4);
    assert!(is_waiting(&second));
    // SAFETY: one byte is there to be written.
    unsafe { libc::write(gate[1], [0u8].as_ptr().cast(), 1) };
    assert_eq!(answer(&first), Place::Begins as u8);
    assert_eq!(answer(&second), Place::Begins as u8);
    end(first);
    end(second);
}

#[test]
fn the_first_begins_before_the_second() {
    let queue = queue();
    let next = elsewhere(|| queue.wait(Ticket { after: 1, after_place: 1, ..ticket(2) }, -1) as u8);
    assert!(is_waiting(&next));
    let first = elsewhere(|| queue.wait(ticket(1), -1) as u8);
    assert_eq!(answer(&first), Place::Begins as u8);
    assert_eq!(answer(&next), Place::Begins as u8);
    end(first);
    end(next);
}

#[test]
fn a_late_one_does_not_set_back_what_has_begun() {
    let queue = queue();
    for number in [2, 1] {
        let one = elsewhere(|| queue.wait(ticket(number), -1) as u8);
        assert_eq!(answer(&one), Place::Begins as u8);
        end(one);
    }
    assert!(queue.has_begun(2));
}

#[test]
fn one_that_could_not_be_started_holds_up_nobody() {
    let queue = queue();
    let after = Ticket { after: 41, after_place: 41, ..ticket(42) };
    let next = elsewhere(|| queue.wait(after, -1) as u8);
    assert!(is_waiting(&next));
    let begun = monotonic();
    queue.write(&41u32.to_ne_bytes(), Queue::helper_at(41));
    assert_eq!(answer(&next), Place::Begins as u8);
    assert!(monotonic() - begun < START / 2);
    end(next);
}

#[test]
fn who_waits_when_the_node_stops_does_not_begin() {
    let queue = queue();
    let mut node = [0; 2];
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe(node.as_mut_ptr()) };
    let running: Vec<_> =
        (0..16).map(|n| elsewhere(|| queue.wait(ticket(n), node[0]) as u8)).collect();
    running.iter().for_each(|one| assert_eq!(answer(one), Place::Begins as u8));
    let next = elsewhere(|| queue.wait(ticket(16), node[0]) as u8);
    assert!(is_waiting(&next));
    // SAFETY: one byte is there to be written.
    unsafe { libc::write(node[1], [0u8].as_ptr().cast(), 1) };
    assert_eq!(answer(&next), Place::Stops as u8);
    running.into_iter().chain([next]).for_each(end);
}

#[test]
fn a_turn_is_one_process_s() {
    let queue = queue();
    let other = elsewhere(|| u8::from(queue.try_turn()));
    assert_eq!(answer(&other), 1);
    assert!(!queue.try_turn());
    assert_eq!(queue.turn_holder(), other.pid);
    end(other);
    assert!(queue.try_turn());
    queue.end_turn();
}
