"""Every text of the page, in every language of the page: one table, so that no translation is forgotten.

A language is added by adding its column; a test refuses a key that lacks one.
"""

from __future__ import annotations

LANGUAGES = {"en": "English", "zh": "中文"}

TEXTS: dict[str, dict[str, str]] = {
    # The page
    "language": {"en": "Language", "zh": "语言"},
    "new_conversation": {"en": "New conversation", "zh": "新对话"},
    "conversation": {"en": "Conversation", "zh": "对话"},
    "welcome": {"en": "What would you like to know?", "zh": "您想了解什么？"},
    "welcome_hint": {
        "en": "Ask, then judge the answer. What you correct is trained on at night, and may still be answered wrongly.",
        "zh": "请提问，然后评价回答。您的纠正会在夜间用于训练；之后模型仍可能答错。",
    },
    "examples": {"en": "For example", "zh": "示例问题"},
    "you": {"en": "You", "zh": "您"},
    "model": {"en": "Answer", "zh": "回答"},
    "footer": {
        "en": "Answers can be wrong. What you ask and say is stored in house, to improve the model.",
        "zh": "回答可能有误。问题、回答和反馈保存在本机构内，用于改进模型。",
    },
    # Asking
    "question": {"en": "Your question", "zh": "您的问题"},
    "question_placeholder": {
        "en": "Ask a question (Enter sends, Shift+Enter for a new line)",
        "zh": "请输入问题（Enter 发送，Shift+Enter 换行）",
    },
    "send": {"en": "Send", "zh": "发送"},
    "stop": {"en": "Stop", "zh": "停止"},
    "writing": {"en": "Writing", "zh": "正在回答"},
    "stopped": {"en": "Stopped by you", "zh": "已由您停止"},
    "cut_off": {"en": "Cut off at the length limit", "zh": "已达到长度上限"},
    "broken_off": {"en": "The answer broke off", "zh": "回答中断"},
    "version": {"en": "Version {version}", "zh": "版本 {version}"},
    "version_base": {"en": "Base model", "zh": "基础模型"},
    "try_again": {"en": "Try again", "zh": "重试"},
    # Judging
    "judge": {"en": "Judge this answer", "zh": "评价此回答"},
    "thumb_up": {"en": "Good answer", "zh": "回答得好"},
    "thumb_down": {"en": "Bad answer", "zh": "回答得不好"},
    "star": {"en": "{count} of 5 stars", "zh": "{count} 星（满分 5 星）"},
    "correct": {"en": "Correct", "zh": "纠正"},
    "correct_hint": {"en": "Correct the answer (Alt+C)", "zh": "纠正回答（Alt+C）"},
    "comment": {"en": "Comment", "zh": "评论"},
    "comment_hint": {"en": "Comment on the answer (Alt+K)", "zh": "评论回答（Alt+K）"},
    "saved": {"en": "Saved", "zh": "已保存"},
    "your_correction": {"en": "Your correction", "zh": "您的纠正"},
    "original": {"en": "The answer as it was", "zh": "原回答"},
    "your_comment": {"en": "Your comment", "zh": "您的评论"},
    # The editor
    "correction_label": {
        "en": "Write the answer as it should be (Ctrl+Enter saves, Esc closes)",
        "zh": "请写出正确的回答（Ctrl+Enter 保存，Esc 关闭）",
    },
    "comment_label": {
        "en": "What should we know about this answer? (Ctrl+Enter saves, Esc closes)",
        "zh": "关于此回答，您想告诉我们什么？（Ctrl+Enter 保存，Esc 关闭）",
    },
    "save_correction": {"en": "Save correction", "zh": "保存纠正"},
    "save_comment": {"en": "Save comment", "zh": "保存评论"},
    "cancel": {"en": "Cancel", "zh": "取消"},
    "unchanged": {
        "en": "This is the answer as it is. Change it first, or give it a thumb up.",
        "zh": "内容与原回答相同。请先修改，或者点赞。",
    },
    "empty": {"en": "Write something first.", "zh": "请先输入内容。"},
    # Two drafts
    "second_draft": {"en": "Second draft", "zh": "第二稿"},
    "second_draft_hint": {
        "en": "Answer again with two drafts side by side, and choose",
        "zh": "重新回答，并排给出两稿供您选择",
    },
    "which_draft": {"en": "Which draft is better?", "zh": "哪一稿更好？"},
    "blind_hint": {
        "en": "The order is random. The versions are shown after you have chosen.",
        "zh": "顺序是随机的，选择后才会显示各稿的版本。",
    },
    "draft": {"en": "Draft {letter}", "zh": "草稿 {letter}"},
    "choose": {"en": "{letter} is better", "zh": "{letter} 更好"},
    "neither": {"en": "No preference", "zh": "没有偏好"},
    "chosen": {"en": "You chose draft {letter}", "zh": "您选择了草稿 {letter}"},
    "other_draft": {"en": "The other draft: {letter}", "zh": "另一稿：{letter}"},
    # When something goes wrong
    "engine_away": {
        "en": "The model is not available at the moment. Please try again in a minute.",
        "zh": "模型暂时不可用，请稍后再试。",
    },
    "rate_limited": {
        "en": "That was a lot at once. Please wait a moment, then try again.",
        "zh": "请求过于频繁，请稍等片刻再试。",
    },
    "too_long": {
        "en": "This is too long for the model. Please shorten it, or start a new conversation.",
        "zh": "内容超出模型的长度限制。请缩短内容，或开始新对话。",
    },
    "not_accepted": {"en": "This was not accepted: {reason}", "zh": "未被接受：{reason}"},
    "failed": {"en": "Something went wrong on our side. Please try again.", "zh": "系统出现错误，请重试。"},
    "signed_out": {
        "en": "You are signed out. Please reload the page and sign in.",
        "zh": "您已退出，请刷新页面并登录。",
    },
    "not_saved": {
        "en": "Your feedback could not be saved. Please click again; it will be counted once.",
        "zh": "反馈未能保存。请再点一次，不会重复计数。",
    },
    # Signing in
    "sign_in": {"en": "Sign in", "zh": "登录"},
    "sign_in_hint": {
        "en": "Enter the access key that you were given. It begins with fw_.",
        "zh": "请输入您获得的访问密钥（以 fw_ 开头）。",
    },
    "access_key": {"en": "Access key", "zh": "访问密钥"},
}


def text(key: str, language: str, **values: object) -> str:
    """The text of a key in a language, with `values` filled in.

    Raises:
        KeyError: no such key or language; both are written in code, so this is a mistake of ours.
    """
    words = TEXTS[key][language]
    return words.format(**values) if values else words


def choose_language(accept_language: str) -> str:
    """The page's language for a browser's Accept-Language header; English where none of ours is wanted."""
    wanted = []
    for position, part in enumerate(accept_language.split(",")[:32]):
        name, _, parameters = part.strip().partition(";")
        language = name.strip().lower().split("-")[0]
        if language in LANGUAGES:
            wanted.append((-_quality(parameters), position, language))
    best = min(wanted, default=(0.0, 0, "en"))
    return best[2] if best[0] < 0 else "en"


def _quality(parameters: str) -> float:
    """The q of one part: 1 where none is given, 0 where it cannot be read."""
    name, _, value = parameters.strip().partition("=")
    if not name:
        return 1.0
    try:
        return min(1.0, max(0.0, float(value))) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
