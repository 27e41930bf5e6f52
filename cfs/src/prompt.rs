//! The question before something dangerous. The words are those that cfs always used.

use serde_json::json;

use crate::Talk;

/// Asks on standard input, terminal or not. End of file is no; `-y` does not even ask; with `--dry-run` nobody is
/// asked, and the answer is no.
pub fn sure(talk: &mut Talk<'_>, danger: &str) -> bool {
    if talk.dry_run {
        talk.say(&format!("would do: {danger}\n"));
        talk.tell(None, &json!({ "would_do": danger }));
        return false;
    }
    if talk.yes {
        return true;
    }
    let question = format!("       DANGER:   {danger}\n       Do you really want to do this? [n] ");
    let mut answer = String::new();
    // In JSON mode standard output belongs to the script.
    let asked = match talk.json {
        true => write!(talk.err, "{question}").and_then(|()| talk.err.flush()),
        false => write!(talk.out, "{question}").and_then(|()| talk.out.flush()),
    };
    let heard = asked.and_then(|()| talk.input.read_line(&mut answer));
    let yes = heard.is_ok() && answer.starts_with(['y', 'Y']);
    let quip = match yes {
        true => "       Fools rush in where angels fear to tread ........\n",
        false => "       Nothing was flushed, and no angel was frightened.\n",
    };
    if answer.is_empty() {
        talk.say("\n");
    }
    talk.say(quip);
    if !yes {
        talk.tell(None, &json!({ "left_out": danger }));
    }
    yes
}
