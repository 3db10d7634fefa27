//! The terminal: taken over on opening, given back on drop.

use std::{
    io::{Stdout, Write, stdout},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyModifiers},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use tokio::sync::mpsc;

/// Keys pressed and not yet taken.
const KEYS_MAX: usize = 16;
/// How soon the thread that waits for keys sees that nobody wants them any more.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Columns and lines that every terminal has.
const SIZE_UNKNOWN: (u16, u16) = (80, 24);
const HELP: &str = "s: sort  r: reverse  ↑↓ PgUp PgDn: scroll  q: quit";
/// The summary and the heads, which stay.
const FIXED: usize = 2;

pub(super) enum Key {
    Sort,
    Reverse,
    Scroll(Scroll),
    /// The terminal has another size.
    Redraw,
    Quit,
}

#[derive(Clone, Copy)]
pub(super) enum Scroll {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

pub(super) struct Screen {
    out: Stdout,
    /// Rows above those that are shown.
    above: usize,
    /// Rows that fitted when it was last drawn.
    page: usize,
}

impl Screen {
    /// Takes over the terminal, and says which keys are pressed.
    pub(super) fn open() -> std::io::Result<(Self, mpsc::Receiver<Key>)> {
        terminal::enable_raw_mode()?;
        let mut screen = Self { out: stdout(), above: 0, page: 0 };
        execute!(screen.out, EnterAlternateScreen, Hide)?;
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&sender))?;
        Ok((screen, keys))
    }

    /// Shows the summary and the heads, then as many of the rest as fit; a problem instead of the help.
    pub(super) fn show(&mut self, lines: &[String], problem: Option<&str>) -> std::io::Result<()> {
        // One that does not know its size, such as a serial line, says that it has none.
        let size = terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0);
        let (width, height) = size.unwrap_or(SIZE_UNKNOWN);
        let (width, height) = (usize::from(width), usize::from(height));
        let room = height.saturating_sub(1).max(1);
        let rows = lines.len().saturating_sub(FIXED);
        self.page = room.saturating_sub(FIXED).max(1);
        self.above = self.above.min(rows.saturating_sub(self.page));
        let shown = lines.iter().take(FIXED).chain(lines.iter().skip(FIXED + self.above));
        queue!(self.out, MoveTo(0, 0))?;
        for (at, line) in shown.take(room).enumerate() {
            let fits: String = line.chars().take(width).collect();
            // The heads stand out from the rows.
            let attribute = if at == 1 { Attribute::Reverse } else { Attribute::Reset };
            queue!(self.out, SetAttribute(attribute), Print(fits), SetAttribute(Attribute::Reset))?;
            queue!(self.out, Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        let below = rows.saturating_sub(self.above + self.page);
        let foot = problem.map_or_else(|| self.foot(below), |problem| format!("! {problem}"));
        let fits: String = foot.chars().take(width).collect();
        queue!(self.out, Print(fits), Clear(ClearType::FromCursorDown))?;
        self.out.flush()
    }

    /// Other rows, from the next drawing on, which holds it within those there are.
    pub(super) fn scroll(&mut self, by: Scroll) {
        self.above = match by {
            Scroll::Up => self.above.saturating_sub(1),
            Scroll::Down => self.above.saturating_add(1),
            Scroll::PageUp => self.above.saturating_sub(self.page),
            Scroll::PageDown => self.above.saturating_add(self.page),
            Scroll::First => 0,
            Scroll::Last => usize::MAX,
        };
    }

    fn foot(&self, below: usize) -> String {
        match (self.above, below) {
            (0, 0) => HELP.to_owned(),
            (0, below) => format!("{below} more  {HELP}"),
            (above, below) => format!("{above} above, {below} more  {HELP}"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What cannot be given back is lost anyway.
        let _ = execute!(self.out, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn read_keys(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        match event::poll(KEY_WAIT) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if let Some(key) = meaning(&event)
                    && keys.blocking_send(key).is_err()
                {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else {
        return matches!(event, Event::Resize(..)).then_some(Key::Redraw);
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('s') => Some(Key::Sort),
        KeyCode::Char('r') => Some(Key::Reverse),
        KeyCode::Up => Some(Key::Scroll(Scroll::Up)),
        KeyCode::Down => Some(Key::Scroll(Scroll::Down)),
        KeyCode::PageUp => Some(Key::Scroll(Scroll::PageUp)),
        KeyCode::PageDown => Some(Key::Scroll(Scroll::PageDown)),
        KeyCode::Home => Some(Key::Scroll(Scroll::First)),
        KeyCode::End => Some(Key::Scroll(Scroll::Last)),
        _ => None,
    }
}
