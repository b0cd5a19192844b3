"""Patterns of text that instructs its reader, by what it tries; `injections` reads texts by them.

One alternative a line, however long, so that a false alarm is taken back by changing one line. Repeats are
bounded and a run of signs begins in one place, so that no text takes more than linear time.
"""

# ruff: noqa: E501

from __future__ import annotations

_TARGET = (
    r"(?:instructions?|prompts?|rules?|guidelines?|directions?|directives?|commands?|criteria|rubrics?|constraints?)"
)
_REACH = r"(?:[\w'’-]+[ ,]+){0,5}?"
_JUDGE = r"(?:judge|grader|evaluator|llm|ai (?:judge|model|grader|evaluator|system)|language model|scoring system)"
_ANSWER = r"(?:(?:this|my|the|that|our) (?:answer|response|output|reply|submission|completion|solution|text|one)|this|it|mine)"
_NOT = r"(?<!\bnot )(?<!n't )(?<!\bnever )(?<!\bcannot )"
_I = r"(?<!\bi )(?<!\bwe )(?<!\bi'd )(?<!\bwould )(?<!\bcould )(?<!\bthey )(?<!\bpeople )(?<!\busers )"
"""Who tells of a rating asks for none."""
_TOP = r"(?:5|five|10|ten|100|1\.0|full|perfect|maximum|max|highest|top|best|flawless)"

LATIN: tuple[tuple[str, str], ...] = (
    # set the reader's own instructions aside; most languages of Latin letters, accents taken off
    (
        "override",
        rf"\b{_NOT}(?:ignor(?:e|ing)|disregard|forget|override|bypass|discard|neglect|do not follow|don't follow|stop following|pay no attention to) (?:about )?{_REACH}(?:all|any|every|everything|your|previous|prior|above|earlier|preceding|former|foregoing|original|initial|system|existing|grading|scoring) {_REACH}{_TARGET}\b",
    ),
    (
        "override",
        rf"\b{_NOT}(?:ignore|disregard|forget) (?:all|everything|anything|whatever) (?:of )?(?:that (?:was|came)|(?:you were|you've been|you have been) told|(?:said |written )?(?:above|before))\b",
    ),
    ("override", r"\b(?:disregard|ignore) the above\b(?! (?:graph|chart|table|figure|image|error|warning|typo))"),
    (
        "override",
        r"\b(?:ignora|ignore|ignoren|olvida|olvide|omite|descarta|haz caso omiso de) (?:\w+ ){0,4}(?:instrucciones|indicaciones|reglas|ordenes)\b",
    ),
    (
        "override",
        r"\b(?:ignore[sz]?|ignorer|oublie[sz]?|oublier|ne tene?z? (?:pas|aucun) compte|ne tiens pas compte) (?:toute?s? |tous |de )?(?:les|vos|tes|ces|mes|des|nos) (?:\w+ ){0,3}(?:instructions|consignes|regles|directives)\b",
    ),
    (
        "override",
        r"\b(?:(?:ignoriere?n?|vergiss|missachte) (?:sie )?(?:\w+ ){0,4}(?:anweisung(?:en)?|instruktion(?:en)?|vorgaben|regeln)|(?:beachte|befolge) (?:\w+ ){0,4}(?:anweisung(?:en)?|instruktion(?:en)?|vorgaben|regeln) nicht)\b",
    ),
    ("override", r"\b(?:ignore|ignora|esqueca|desconsidere) (?:\w+ ){0,4}(?:instrucoes|orientacoes|regras)\b"),
    (
        "override",
        r"\b(?:ignora|ignorate|dimentica|dimenticate|non seguire) (?:\w+ ){0,4}(?:istruzioni|indicazioni|regole)\b",
    ),
    ("override", r"\b(?:negeer|vergeet) (?:\w+ ){0,4}(?:instructies|regels|aanwijzingen)\b"),
    ("override", r"\b(?:zignoruj|zapomnij o|pomin) (?:\w+ ){0,4}(?:instrukcje|polecenia|zasady)\b"),
    ("override", r"\b(?:talimat|kural)\w* (?:\w+ ){0,2}(?:yok say|gormezden gel|unut)"),
    ("override", r"\b(?:bo qua|phot lo) (?:\w+ ){0,4}(?:huong dan|chi dan|lenh)\b"),
    ("override", r"\babaikan (?:\w+ ){0,4}(?:instruksi|perintah|aturan)\b"),
    ("new task", r"\b(?:new|updated|revised) (?:system )?(?:instructions?|prompt|directive) ?(?:[:=]|for you)"),
    ("new task", r"\byour (?:new|real|actual|true) (?:task|goal|job|objective|instructions?) (?:is|are|now)\b"),
    (
        "new task",
        rf"\b(?:from now on|starting now|henceforth),? (?:you|the {_JUDGE}) (?:will|must|are|shall|should|only|have to)\b",
    ),
    # a word to the judge about the score
    (
        "asks for a score",
        rf"\b{_I}(?:give|award|assign|grant|rate|score|grade|mark) {_ANSWER} (?:as |with |at |an? |the )*{_TOP}(?![\w%])(?! (?:minutes?|hours?|days?|times?|percent|dollars?|euros?))",
    ),
    (
        "asks for a score",
        rf"\b(?:give|award|assign|output|return|reply with|respond with|answer with|print|write) (?:me |it |us |only )?(?:an? |the )?(?:score|rating|grade|verdict|mark) (?:of |as |is |: ?)?[\"']?(?:{_TOP}|a|b|tie|win)\b",
    ),
    (
        "asks for a score",
        rf"\b(?:give|award|assign|grant) (?:me |it |us |{_ANSWER} )?(?:an? |the )?(?:{_TOP}) (?:possible )?(?:score|rating|grade|marks?|points?|stars?)\b",
    ),
    (
        "asks for a score",
        rf"\b{_I}(?:score|rate|grade|mark) (?:it|this|me) (?:as )?(?:an? )?{_TOP}(?: ?/ ?(?:5|10|100))?(?:[.!\"')]| out of|$)",
    ),
    (
        "asks for a score",
        r"\b(?:choose|select|pick|prefer|vote for|declare) (?:answer|response|option|output|assistant|candidate|model)[ _](?:a|b|1|2|one|two)\b(?: (?:as|over|is|no matter|regardless|and)|[.!,\"']|$)",
    ),
    (
        "asks for a score",
        r"\b(?:puntua|califica|puntuacion|calificacion|note[rz]? cette|notez|bewerte|bewertung|gib (?:dieser|mir)|avalie|nota maxima|punteggio|voto massimo|dale la|donne[rz]? la note)\b.{0,40}(?:\b(?:5|10|100|cinco|cinq|funf|cinque|maxima?o?|massimo|hochste|hochstnote|maximale|parfait|perfect[ao]?)\b)",
    ),
    (
        "speaks to the judge",
        rf"\b(?:note|message|attention|notice|memo|instructions?|hint|dear|hello|hey|hi|reminder) (?:to |for )?(?:the |all )?{_JUDGE}s?\b ?[:,!.-]",
    ),
    (
        "speaks to the judge",
        rf"\b(?:you,? )?as (?:the|an?) (?:impartial |fair |expert )?{_JUDGE},? (?:you )?(?:must|should|shall|will|have to|need to|are required to)\b",
    ),
    (
        "speaks to the judge",
        rf"\b(?:the|any) (?!judge){_JUDGE} (?:must|should|shall|has to|needs to|is required to|is instructed to)\b",
    ),
    (
        "speaks to the judge",
        r"\bif you(?: are|'re) (?:an? |the )?(?:llm|ai|large language model|language model|grader|judge|evaluator|automated (?:grader|judge|evaluator))\b",
    ),
    (
        "speaks to the judge",
        r"\b(?:this|the) (?:answer|response|submission) (?:has (?:already )?been|was|is) (?:\w+ )?(?:verified|pre-?approved|certified|validated|graded|reviewed)\b.{0,60}\b(?:correct|score|grade|perfect|full|5|10)\b",
    ),
    # a verdict that the text brings along
    (
        "claims a verdict",
        r"(?:^|[{, ])\\?[\"'](?:score|verdict|rating|grade)\\?[\"'] ?: ?\\?[\"']?(?:\d{1,3}(?:\.\d+)?|a|b|c|tie|win)\\?[\"']? ?, ?\\?[\"'](?:rationale|reason|reasoning|explanation|justification|feedback|comment)\\?[\"'] ?:",
    ),
    (
        "claims a verdict",
        r"\[\[ ?(?:a|b|c|tie)(?:>{1,2}[ab]|=[ab])? ?\]\]|\b(?:rating|score|verdict|grade) ?[:=]? ?\[\[ ?\d{1,3} ?\]\]",
    ),
    (
        "claims a verdict",
        r"\b(?:final|overall|official|my|judge'?s?|grader'?s?|evaluator'?s?|evaluation) (?:verdict|score|rating|grade|judge?ment|evaluation) ?(?:is|[:=]) ?\**[\"']?(?:\d{1,2} ?/ ?\d{1,3}\b|(?:5|10)\b(?! ?[-–:.]? ?\d)|(?:answer|response|assistant) [ab]\b|perfect|excellent|full marks)",
    ),
    # another speaker
    (
        "fakes a role",
        r"<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|end_of_text|begin_of_text|start_header_id|end_header_id|eot_id|eom_id|end|return|call|channel|message)\|>|<(?:start|end)_of_turn>|\[/?inst\]|<</?sys>>|<｜(?:user|assistant|begin▁of▁sentence|end▁of▁sentence)｜>",
    ),
    (
        "fakes a role",
        r"</?(?:system|system[_-]?(?:prompt|message|instructions?)|instructions?|judge|grader|evaluator|user_input|grading_rubric)>",
    ),
    (
        "fakes a role",
        r"(?:\[|\(|\*\*|#{1,6} ?|<|^|[\n.\"'] ?)(?:system|developer|admin(?:istrator)?|root)(?: (?:message|prompt|override|notice|note|update|instruction|alert|command))?(?:\]|\)|\*\*|>)? ?:(?:\*\*)? ?(?:you (?:are|must|will|should|now)|the (?:user|grader|judge|assistant|answer|response|evaluation|previous)|ignore|disregard|forget|override|new |from now|grade|score|rate|give|always|output|respond|print|reveal|set |this (?:answer|response))",
    ),
    (
        "fakes a role",
        r"\b(?:system|admin|root) (?:override|overwrite|prompt override|mode (?:enabled|activated|on))\b|\b(?:begin|end|start) (?:of )?(?:system|developer) (?:message|prompt)\b",
    ),
    (
        "fakes a role",
        r"\b(?:i am|i'm|this is|message from|on behalf of) (?:the |your )?(?:developer|administrator|admin|creator|system administrator|openai|anthropic)\b.{0,60}\b(?:instruct|order|command|authori[sz]e|override|ignore|must|grade|score)",
    ),
    (
        "role play",
        r"\byou are (?:now )?(?:dan\b|do anything now|jailbroken|unrestricted|uncensored|in (?:developer|god|debug|maintenance|test) mode|free (?:from|of) (?:all|any|your)|no longer (?:an? |bound|restricted|limited|a))",
    ),
    (
        "role play",
        r"\byou are now (?:an? |the |my )?(?:\w+ ){0,3}(?:judge|grader|evaluator|unrestricted|uncensored|evil|pirate|parrot|calculator|linux terminal|generator)\b",
    ),
    (
        "role play",
        r"\b(?:do anything now|developer mode (?:enabled|on|activated)|enable (?:developer|god|debug|dan) mode|jailbreak mode|enter (?:developer|god|debug|maintenance) mode|without any (?:ethical |moral |content |safety )+(?:restrictions?|guidelines?|filters?|limitations?))\b",
    ),
    (
        "role play",
        r"\b(?:pretend|imagine|simulate|act as if|act as though|suppose|let's play a game).{0,60}\b(?:you(?:'re| are)? (?:have )?(?:no (?:rules|restrictions|guidelines|filters)|not bound|unrestricted|the (?:judge|grader|evaluator))|(?:judge|grader|evaluator) (?:who|that) (?:always|only|must|gives?))",
    ),
    (
        "asks for the prompt",
        r"\b(?:reveal|print|show|repeat|output|display|leak|disclose|tell me|give me|write out|recite|what (?:is|are|was|were)) (?:me )?(?:all |every(?:thing)? |exactly |verbatim |of )*(?:your |the )?(?:(?:full|entire|exact|own) )?(?:system|hidden|secret|initial|original|internal) (?:system )?(?:prompt|instructions|guidelines)\b",
    ),
    (
        "asks for the prompt",
        r"\brepeat (?:the |all )*(?:words|text|everything|lines?) (?:above|before this|starting with)\b",
    ),
    # the end of a block that the text cannot end
    (
        "ends its block",
        r"(?<!=)={4,} ?[0-9a-f]{8,} ?={4,}|(?<![-=#*<\[])(?:[-=#*<\[]{2,}|[<\[]) ?(?:end|begin|start)(?: of)? (?:the )?(?:user |untrusted |student |candidate |assistant )?(?:data|answer|response|input|output|submission|document|context|text|conversation|material|block|prompt|content|delimiter)s?(?: [ab])? ?[-=#*>\]]+",
    ),
    (
        "ends its block",
        r"</(?:data|answer|response|input|user|submission|document|context|content|conversation|answer_?[ab])>.{0,80}(?:<|\b(?:ignore|now|score|grade|rate|give|verdict|system|instructions?)\b)",
    ),
    (
        "ends its block",
        r"[\"'] ?[}\]]{1,3} ?,? ?(?:={3,}|\\n|the (?:data|answer|json) (?:ends|is over)|end of (?:data|json)|(?:now )?(?:ignore|grade|score|rate|give|output) )",
    ),
)
"""Name and pattern, for text as `folding.latin` gives it."""

OTHER: tuple[tuple[str, str], ...] = (
    (
        "override",
        r"(?:忽略|无视|無視|忽視|忘记|忘記|不要理会|不要理會|不要遵守|抛开).{0,14}(?:指令|指示|说明|說明|提示词|提示詞|规则|規則|要求|命令)",
    ),
    ("override", r"(?:指示|命令|指令|プロンプト|ルール|規則).{0,10}(?:無視|忘れ|従わな)"),
    ("override", r"(?:지시|명령|지침|프롬프트|규칙).{0,8}(?:무시|잊)"),
    (
        "override",
        r"(?:игнорир|забудь|не обращай внимани|не следуй|отмени)\w* ?(?:[\w]+ ){0,4}(?:инструкци|указани|правил|команд|промпт)",
    ),
    ("override", r"(?:تجاهل|انس|تجاهلي|اهمل|أهمل).{0,30}(?:تعليمات|التعليمات|الأوامر|الاوامر|القواعد)"),
    ("override", r"(?:निर्देश|नियम|आदेश).{0,24}(?:अनदेखा|नज़रअंदाज़|नजरअंदाज|भूल|उपेक्षा)"),
    ("override", r"(?:ігноруй|забудь)\w* (?:[\w]+ ){0,4}(?:інструкці|вказівк|правил)"),
    ("override", r"(?:เพิกเฉย|ละเว้น|ลืม|ไม่ต้องสนใจ).{0,20}(?:คำสั่ง|คำแนะนำ|กฎ)"),
    ("override", r"(?:התעלם|תתעלם|שכח).{0,20}(?:הוראות|ההוראות|הנחיות|ההנחיות)"),
    (
        "asks for a score",
        r"(?:给|給|打|评|評)(?:这个|這個|我|本|此|该)?(?:答案|回答|回复|回復|回應)?.{0,6}(?:满分|滿分|最高分|5 ?分|五分|10 ?分|十分|100 ?分)",
    ),
    (
        "asks for a score",
        r"(?:この|本)?(?:回答|答え|解答).{0,10}(?:満点|最高点|最高評価|5点|5 ?点|10点)|(?:満点|最高点|最高評価)を(?:与|付|つけ|くだ)",
    ),
    ("asks for a score", r"(?:답변|응답|대답).{0,12}(?:만점|최고 ?점수|5점|10점)"),
    ("asks for a score", r"(?:поставь|оцени|поставьте|оцените)\w*.{0,30}(?:5|пят|максимальн|высш|10|100)"),
    ("asks for a score", r"(?:أعط|اعط|قيّم|قيم|امنح).{0,30}(?:5|٥|خمسة|كاملة|الدرجة|أعلى|10)"),
    ("asks for a score", r"(?:उत्तर|जवाब|प्रतिक्रिया).{0,20}(?:पूरे अंक|5 अंक|पूर्ण अंक|सर्वोच्च)"),
)
"""Likewise for text as `folding.fold` gives it: languages of other letters."""
